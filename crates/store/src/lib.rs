//! The store role: the bucket behind the StoreAPI.
