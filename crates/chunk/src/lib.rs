//! Chunk encodings: XOR, XOR2, native histograms, downsampled aggregates.
