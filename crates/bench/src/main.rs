//! `chronolith-bench`: load generator and paired measurements against peers.
fn main() {}
