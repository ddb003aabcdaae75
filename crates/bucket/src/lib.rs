//! Blocks in a bucket: layout, markers, upload, fetch, index header, reading series.
