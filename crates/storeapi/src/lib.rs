//! The StoreAPI: protobuf, the traits [`Store`], [`Exemplars`], [`Metadata`], [`Rules`], [`Targets`] and
//! [`WriteSink`], server, client, k-way merge.
//!
//! ```text
//! local data ─ local (external labels, shape, limits) ─┐                ┌─ server ─ gRPC
//!                                                      ├─ dyn Store ────┤
//! gRPC ─ client ───────────────────────────────────────┤                └─ query
//! many stores ─ fanout ─ merge ────────────────────────┘
//! ```
//!
//! The wire stops here: protobuf becomes domain types in `convert` and `wire`. `contract` is the acceptance suite
//! that every [`Store`] passes.

mod chunk_encodings;
mod chunks;
mod client;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod convert;
mod convert_exemplars;
mod convert_fold;
mod convert_hints;
mod convert_rules;
mod convert_status;
mod error;
mod exemplars;
mod fanout;
mod fold;
pub mod local;
mod loser_tree;
mod memory;
mod merge;
mod metadata;
mod peer;
mod projection;
pub mod proto;
mod request;
mod rules;
mod server;
mod shape;
mod status;
mod store;
mod targets;
mod wire;
mod write;

pub use chunks::sort_and_dedup;
pub use client::{ClientOptions, ClientTls, StoreClient, connect_lazy};
pub use convert::EndpointInfo;
pub use error::{ErrorKind, StoreError};
pub use exemplars::{Exemplars, ExemplarsAnswer, ExemplarsRequest, SeriesExemplars};
pub use fanout::FoldedParts;
pub use fanout::{ADDRESS_LABEL, Apis, Endpoint, EndpointSet, Endpoints, Fanout, FanoutOptions};
pub use fold::{EvaluateOver, Fold, FoldAnswer, FoldCall};
pub use memory::MemoryStore;
pub use merge::{BATCH_SERIES, MergeOptions, SeriesIter, Source, merge, merge_iters};
pub use metadata::{Metadata, MetadataAnswer, MetadataRequest};
pub use peer::{PeerClient, PeerForm, PeerShare, compress_batch, decode_batch, encode_batch};
pub use projection::{Projection, SERIES_HASH_LABEL};
pub use request::{
    Aggregate, AggregateSet, LabelNamesRequest, LabelValuesRequest, PartialResponse, QueryHints,
    SeriesRequest, ShardInfo,
};
pub use rules::{
    AlertInstance, AlertState, Alerting, Rule, RuleGroup, RuleKind, Rules, RulesAnswer, RulesRequest,
};
pub use server::{SeriesLimits, ServerOptions, Services, routes, serve};
pub use shape::{Shaper, with_changes};
pub use status::{Statistic, Status, StatusAnswer, StatusRequest, TsdbStatistics};
pub use store::{
    AggrChunk, DownsampledChunk, LabelNames, LabelValues, SeriesEvent, SeriesHints, SeriesStats,
    SeriesStream, Store, StoreInfo, StoreSeries, TsdbInfo,
};
pub use targets::{ActiveTarget, TargetHealth, Targets, TargetsAnswer, TargetsRequest};
pub use write::{RejectKind, WriteError, WriteInFlight, WriteRejection, WriteReport, WriteSink, WriteWay};
