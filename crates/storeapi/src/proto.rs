//! The messages and services compiled from the workspace's `proto` folder.
//!
//! They stay behind this crate's door: everything outside speaks the domain types of `store` and `write`. Series in
//! a response are raw bytes here, see `wire`.

#![allow(missing_docs, clippy::all, unreachable_pub)]

include!(concat!(env!("OUT_DIR"), "/protos.rs"));
