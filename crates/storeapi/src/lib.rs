//! The StoreAPI: protobuf, the traits [`Store`] and [`WriteSink`], server, client, k-way merge.

mod error;
pub mod proto;
mod request;
mod store;
mod write;

pub use error::{ErrorKind, StoreError};
pub use request::{
    Aggregate, AggregateSet, LabelNamesRequest, LabelValuesRequest, PartialResponse, QueryHints,
    SeriesRequest, ShardInfo,
};
pub use store::{
    AggrChunk, DownsampledChunk, LabelNames, LabelValues, SeriesEvent, SeriesHints, SeriesStream, Store,
    StoreInfo, StoreSeries, TsdbInfo,
};
pub use write::{RejectKind, WriteError, WriteRejection, WriteReport, WriteSink};
