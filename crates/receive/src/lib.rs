//! The receive role: remote write in, blocks out.
