//! The StoreAPI: protobuf, the traits Store and WriteSink, server, client, k-way merge.
