//! The query role: PromQL over any number of StoreAPI endpoints.
