//! Memory budgets: what a query holds is counted by what it is held for, against a bound of its own and one that all
//! queries of the process share. A query that asks for more fails with an error that says where its memory went.
//!
//! Counted are the things that grow with the data: chunks and samples that were read, vectors, groups, join tables,
//! results and replies. Not counted are the plan and what one row needs while it is computed.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What memory is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryUse {
    /// Series as the storage handed them over.
    Storage,
    /// Decoded samples of a series.
    Samples,
    /// Vectors between operators.
    Vectors,
    /// Groups of aggregations.
    Groups,
    /// What binary operators, `info` and `histogram_quantile` look up matches in.
    Joins,
    /// The result.
    Result,
    /// The reply to the client.
    Reply,
}

impl MemoryUse {
    const ALL: [MemoryUse; 7] = [
        MemoryUse::Storage,
        MemoryUse::Samples,
        MemoryUse::Vectors,
        MemoryUse::Groups,
        MemoryUse::Joins,
        MemoryUse::Result,
        MemoryUse::Reply,
    ];

    fn as_str(self) -> &'static str {
        match self {
            MemoryUse::Storage => "series from storage",
            MemoryUse::Samples => "decoded samples",
            MemoryUse::Vectors => "vectors",
            MemoryUse::Groups => "groups",
            MemoryUse::Joins => "join tables",
            MemoryUse::Result => "result",
            MemoryUse::Reply => "reply",
        }
    }
}

/// A query asked for more memory than it, or all queries together, may use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MemoryExceeded(String);

/// The part of the pool that only queries that hold little may use, so that they go on beside one that holds a lot.
const SMALL_QUERIES_SHARE: usize = 8;
/// A query holds little up to this part of the pool.
const SMALL_QUERY: usize = 64;

/// Memory that all queries of a process share.
#[derive(Debug)]
pub struct MemoryPool {
    max: usize,
    held: AtomicUsize,
    peak: AtomicUsize,
    refused: AtomicUsize,
}

impl MemoryPool {
    /// A pool of so many bytes.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(MemoryPool {
            max,
            held: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
        })
    }

    /// The bound.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Bytes that are held now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Most bytes that were held at one time.
    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// Requests that were refused.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// Takes bytes for a query that holds `held` with them.
    fn take(&self, bytes: usize, held: usize) -> bool {
        let small = held <= self.max / SMALL_QUERY;
        let max = if small { self.max } else { self.max - self.max / SMALL_QUERIES_SHARE };
        let now = self.held.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if now > max {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
            self.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.peak.fetch_max(now, Ordering::Relaxed);
        true
    }
}

/// What one query holds, and may hold.
#[derive(Debug, Default)]
pub struct QueryMemory {
    /// 0 is no bound.
    max: usize,
    pool: Option<Arc<MemoryPool>>,
    held: AtomicUsize,
    peak: AtomicUsize,
    uses: [AtomicUsize; MemoryUse::ALL.len()],
}

impl QueryMemory {
    /// Counts only.
    pub fn unlimited() -> Arc<Self> {
        Arc::new(QueryMemory::default())
    }

    /// A budget of so many bytes (0 is no bound), and of what the pool has.
    pub fn new(max: usize, pool: Option<Arc<MemoryPool>>) -> Arc<Self> {
        Arc::new(QueryMemory { max, pool, ..QueryMemory::default() })
    }

    /// Bytes that are held now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Most bytes that were held at one time.
    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// The query's own bound; 0 is none.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Takes bytes; on refusal nothing is taken.
    pub fn take(&self, what: MemoryUse, bytes: usize) -> Result<(), MemoryExceeded> {
        if bytes == 0 {
            return Ok(());
        }
        let held = self.held.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let over = self.max > 0 && held > self.max;
        if over || self.pool.as_ref().is_some_and(|pool| !pool.take(bytes, held)) {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
            return Err(self.refusal(what, bytes, over));
        }
        self.peak.fetch_max(held, Ordering::Relaxed);
        self.uses[what as usize].fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Gives bytes back that were taken for this.
    pub fn give_back(&self, what: MemoryUse, bytes: usize) {
        self.uses[what as usize].fetch_sub(bytes, Ordering::Relaxed);
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(pool) = &self.pool {
            pool.held.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// An error where so many bytes more would not fit; takes nothing.
    pub fn check(&self, what: MemoryUse, bytes: usize) -> Result<(), MemoryExceeded> {
        self.take(what, bytes)?;
        self.give_back(what, bytes);
        Ok(())
    }

    /// Takes bytes until the hold is dropped.
    pub fn hold(self: &Arc<Self>, what: MemoryUse, bytes: usize) -> Result<MemoryHold, MemoryExceeded> {
        self.take(what, bytes)?;
        Ok(MemoryHold { memory: Arc::clone(self), what, bytes })
    }

    fn refusal(&self, what: MemoryUse, bytes: usize, own: bool) -> MemoryExceeded {
        let mut uses: Vec<(usize, MemoryUse)> = MemoryUse::ALL
            .iter()
            .map(|u| (self.uses[*u as usize].load(Ordering::Relaxed), *u))
            .filter(|(bytes, _)| *bytes > 0)
            .collect();
        uses.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        let list: Vec<String> =
            uses.iter().map(|(bytes, what)| format!("{} {}", what.as_str(), Bytes(*bytes))).collect();
        let list = if list.is_empty() { String::new() } else { format!(" ({})", list.join(", ")) };
        let (held, asked, what) = (Bytes(self.held()), Bytes(bytes), what.as_str());
        MemoryExceeded(match (own, &self.pool) {
            (false, Some(pool)) => format!(
                "query was refused memory: all queries together may use {} (--query.max-memory-total) and hold {}; \
                 this one holds {held}{list} and asked for {asked} more for {what}",
                Bytes(pool.max),
                Bytes(pool.held()),
            ),
            _ => format!(
                "query needs more memory than a query may use: {} (--query.max-memory); \
                 it holds {held}{list} and asked for {asked} more for {what}",
                Bytes(self.max),
            ),
        })
    }
}

/// Memory that is given back when this is dropped.
#[derive(Debug)]
pub struct MemoryHold {
    memory: Arc<QueryMemory>,
    what: MemoryUse,
    bytes: usize,
}

impl MemoryHold {
    /// Holds so many bytes from now on.
    pub fn resize(&mut self, bytes: usize) -> Result<(), MemoryExceeded> {
        if bytes > self.bytes {
            self.memory.take(self.what, bytes - self.bytes)?;
        } else {
            self.memory.give_back(self.what, self.bytes - bytes);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for MemoryHold {
    fn drop(&mut self) {
        self.memory.give_back(self.what, self.bytes);
    }
}

/// Prints bytes with a binary unit.
struct Bytes(usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
        let mut value = self.0 as f64;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        if unit == 0 { write!(f, "{value} B") } else { write!(f, "{value:.1} {}", UNITS[unit]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_told_where_its_memory_went() {
        let memory = QueryMemory::new(100 << 20, None);
        let vectors = memory.hold(MemoryUse::Vectors, 60 << 20).unwrap();
        let mut joins = memory.hold(MemoryUse::Joins, 30 << 20).unwrap();
        let refused = joins.resize(50 << 20).unwrap_err().to_string();
        assert_eq!(
            refused,
            "query needs more memory than a query may use: 100.0 MiB (--query.max-memory); it holds 90.0 MiB \
             (vectors 60.0 MiB, join tables 30.0 MiB) and asked for 20.0 MiB more for join tables"
        );
        assert_eq!((memory.held(), memory.peak(), joins.bytes()), (90 << 20, 90 << 20, 30 << 20));
        drop((vectors, joins));
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn a_large_query_leaves_something_to_small_ones() {
        let pool = MemoryPool::new(6400);
        let large = QueryMemory::new(0, Some(Arc::clone(&pool)));
        large.take(MemoryUse::Groups, 5600).unwrap();
        let refused = large.take(MemoryUse::Groups, 1).unwrap_err().to_string();
        assert!(
            refused.contains("all queries together may use 6.2 KiB (--query.max-memory-total)"),
            "{refused}"
        );
        let small = QueryMemory::new(0, Some(Arc::clone(&pool)));
        small.take(MemoryUse::Vectors, 100).unwrap();
        assert!(small.take(MemoryUse::Vectors, 1).is_err(), "it is not small any more");
        assert_eq!((pool.held(), pool.refused()), (5700, 2));
        large.give_back(MemoryUse::Groups, 5600);
        small.give_back(MemoryUse::Vectors, 100);
        assert_eq!((pool.held(), pool.peak()), (0, 5700));
    }
}
