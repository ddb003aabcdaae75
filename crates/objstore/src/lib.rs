//! Bucket client and its objstore.yml configuration, over object_store.
