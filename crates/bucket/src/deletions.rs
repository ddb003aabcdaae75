//! Requests to delete series: recorded in the bucket, honoured by every reader, applied when blocks are rewritten.
//!
//! ```text
//! chronolith/deletions/<ULID>.json     one request; Thanos and Prometheus skip what is not below a ULID
//! chronolith/deletions/<ULID>.looked   blocks in which a compactor found nothing of it, see [`Looked`]
//! ```
//!
//! Until a rewrite has taken the samples out, readers mask them: [`Deletions::mask`] gives what concerns one producer,
//! [`Mask::apply`] takes it out of chunks as they are read. A block that says in its `rewrites` that a request was applied
//! to it is not masked for it. A request never changes; revoking it removes the object, and what was not rewritten yet is
//! back. A crash between two rewrites leaves a request that is applied to some blocks and masked in the others.

mod looked;
mod mask;
mod watch;

use std::collections::BTreeSet;

use chronolith_model::{BlockId, Labels, MatchOp, Matcher, TimeRange};
use chronolith_objstore::{Bucket, PutOutcome};
use chronolith_tsdb::block::BlockMeta;
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

pub use looked::Looked;
pub use mask::Mask;
pub(crate) use mask::hides_chunk;
pub use watch::DeletionWatch;

use crate::{Error, Result};

/// Where requests lie.
pub const PREFIX: &str = "chronolith/deletions";
/// The only version there is.
const VERSION: u64 = 1;
/// Requests read at a time.
const CONCURRENT: usize = 16;

/// A request as it stands in the bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletionRequest {
    version: u64,
    /// Its name, a ULID.
    pub id: String,
    /// Whose request it is; empty where tenants are not told apart. What it reaches is in the matchers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tenant: String,
    /// When it was made, milliseconds since the epoch.
    pub created: i64,
    /// First millisecond.
    pub mint: i64,
    /// Last millisecond, included. Never behind `created`: what comes later is not meant.
    pub maxt: i64,
    /// A series is meant when all matchers of one selector hold for its labels, external ones included.
    selectors: Vec<Vec<WrittenMatcher>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WrittenMatcher {
    name: String,
    op: String,
    value: String,
}

impl DeletionRequest {
    /// A request for what the selectors select in the range, as far as it is there now.
    pub fn new(selectors: &[Vec<Matcher>], range: TimeRange, tenant: &str, now_ms: i64) -> Self {
        let id = ulid::Ulid::from_parts(now_ms.max(0).unsigned_abs(), rand::random());
        let written = |m: &Matcher| WrittenMatcher {
            name: m.name.clone(),
            op: m.op.as_str().to_owned(),
            value: m.value.clone(),
        };
        DeletionRequest {
            version: VERSION,
            id: id.to_string(),
            tenant: tenant.to_owned(),
            created: now_ms,
            mint: range.mint,
            maxt: range.maxt.min(now_ms),
            selectors: selectors.iter().map(|s| s.iter().map(written).collect()).collect(),
        }
    }

    /// The closed range that is deleted.
    pub fn range(&self) -> TimeRange {
        TimeRange::new(self.mint, self.maxt)
    }

    /// The selectors as PromQL writes them.
    pub fn selector_texts(&self) -> Vec<String> {
        let text = |s: &Vec<WrittenMatcher>| {
            let matchers: Vec<String> =
                s.iter().map(|m| format!("{}{}{:?}", m.name, m.op, m.value)).collect();
            format!("{{{}}}", matchers.join(", "))
        };
        self.selectors.iter().map(text).collect()
    }

    fn key(id: &str) -> String {
        format!("{PREFIX}/{id}.json")
    }

    /// Records the request.
    pub async fn write(&self, bucket: &Bucket) -> Result<()> {
        let json = serde_json::to_vec_pretty(self).expect("a request is plain data");
        match bucket.put_if_absent(&Self::key(&self.id), json.into()).await? {
            PutOutcome::Created => Ok(()),
            // A repeated put of the same bytes: ids do not meet by chance.
            PutOutcome::Exists => Ok(()),
        }
    }

    /// Takes the request back. False when there is none of that name.
    pub async fn revoke(bucket: &Bucket, id: BlockId) -> Result<bool> {
        let key = Self::key(&id.to_string());
        let there = bucket.exists(&key).await?;
        if there {
            bucket.delete(&key).await?;
        }
        Looked::remove(bucket, id).await?;
        Ok(there)
    }

    fn parse(key: &str, json: &[u8]) -> Result<Deletion> {
        let corrupt = |what: String| Error::corrupt(key, 0, what);
        let request: DeletionRequest = serde_json::from_slice(json).map_err(|e| corrupt(e.to_string()))?;
        if request.version != VERSION {
            return Err(corrupt(format!("version {} is unknown, only 1 is read", request.version)));
        }
        let id = request.id.parse().map_err(|_| corrupt(format!("{:?} is no ULID", request.id)))?;
        let compile = |m: &WrittenMatcher| {
            let op = match m.op.as_str() {
                "=" => MatchOp::Equal,
                "!=" => MatchOp::NotEqual,
                "=~" => MatchOp::Regex,
                "!~" => MatchOp::NotRegex,
                other => return Err(corrupt(format!("{other:?} is no operator of a matcher"))),
            };
            Matcher::new(op, &m.name, &m.value).map_err(|e| corrupt(e.to_string()))
        };
        let selectors: Vec<Vec<Matcher>> =
            request.selectors.iter().map(|s| s.iter().map(compile).collect()).collect::<Result<_>>()?;
        if selectors.iter().any(Vec::is_empty) {
            return Err(corrupt("a selector without matchers".to_owned()));
        }
        Ok(Deletion { id, selectors, request })
    }
}

/// A request with its matchers compiled.
#[derive(Clone, Debug)]
pub struct Deletion {
    /// Its name.
    pub id: BlockId,
    /// A series is meant when all matchers of one of them hold.
    pub selectors: Vec<Vec<Matcher>>,
    /// As it stands in the bucket.
    pub request: DeletionRequest,
}

impl Deletion {
    /// True when the block's labels and times do not rule out that it has something of the request, and no rewrite took that out.
    pub fn concerns(&self, meta: &BlockMeta) -> bool {
        Deletions { all: vec![self.clone()] }.mask_of(meta).is_some()
    }
}

/// All requests of a bucket at one moment, by age.
#[derive(Clone, Debug, Default)]
pub struct Deletions {
    /// The requests.
    pub all: Vec<Deletion>,
}

impl Deletions {
    /// Reads the requests. One that cannot be understood is an error: what it deletes must not be shown.
    pub async fn read(bucket: &Bucket) -> Result<Self> {
        let keys: Vec<String> = list(bucket).await?.into_iter().collect();
        Self::read_keys(bucket, keys, &[]).await
    }

    /// Reads the requests of these keys, taking over what is known: a request never changes.
    async fn read_keys(bucket: &Bucket, keys: Vec<String>, known: &[Deletion]) -> Result<Self> {
        let one = |key: String| async move {
            if let Some(known) = known.iter().find(|d| DeletionRequest::key(&d.request.id) == key) {
                return Ok(Some(known.clone()));
            }
            match bucket.get(&key).await {
                Ok(json) => DeletionRequest::parse(&key, &json).map(Some),
                // Revoked meanwhile.
                Err(e) if e.is_not_found() => Ok(None),
                Err(e) => Err(e.into()),
            }
        };
        let reads = futures::stream::iter(keys.into_iter().map(one)).buffered(CONCURRENT);
        let all: Vec<Option<Deletion>> = reads.try_collect().await?;
        Ok(Deletions { all: all.into_iter().flatten().collect() })
    }

    /// True when nothing is to be masked anywhere.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// True when something is to be masked in `range`.
    pub fn any_in(&self, range: TimeRange) -> bool {
        self.all.iter().any(|d| d.request.range().overlaps(&range))
    }

    /// What concerns series with these external labels in `range`; `None` when nothing does. `applied` are requests that a
    /// rewrite took out already. Windows of downsampled data stand at their ends, so those that reach into the range go.
    pub fn mask(
        &self,
        external: &Labels,
        range: TimeRange,
        resolution_ms: i64,
        applied: &BTreeSet<BlockId>,
    ) -> Option<Mask> {
        let mut mask = Mask::default();
        for deletion in self.all.iter().filter(|d| !applied.contains(&d.id)) {
            let request = &deletion.request;
            let maxt = request.maxt.saturating_add((resolution_ms - 1).max(0));
            let deleted = TimeRange::new(request.mint, maxt);
            if !deleted.overlaps(&range) {
                continue;
            }
            for selector in &deletion.selectors {
                if let Some(matchers) = of_series(selector, external) {
                    mask.add(deletion.id, matchers, deleted);
                }
            }
        }
        (!mask.is_empty()).then_some(mask)
    }

    /// What concerns a block.
    pub fn mask_of(&self, meta: &BlockMeta) -> Option<Mask> {
        if self.is_empty() {
            return None;
        }
        let thanos = meta.thanos.clone().unwrap_or_default();
        let external = thanos.external_labels().unwrap_or_else(|_| Labels::empty());
        self.mask(&external, meta.time_range(), thanos.downsample.resolution, &applied_to(meta))
    }
}

async fn list(bucket: &Bucket) -> Result<BTreeSet<String>> {
    let objects: Vec<_> = bucket.list(PREFIX).try_collect().await?;
    Ok(objects.into_iter().map(|o| o.key).filter(|k| k.ends_with(".json")).collect())
}

/// The matchers that are left for a series' own labels; `None` when the external labels do not satisfy theirs.
pub fn of_series(selector: &[Matcher], external: &Labels) -> Option<Vec<Matcher>> {
    let mut own = Vec::new();
    for matcher in selector {
        match external.get(&matcher.name) {
            Some(value) if matcher.matches(value) => {}
            Some(_) => return None,
            None => own.push(matcher.clone()),
        }
    }
    Some(own)
}

/// The requests that the block's `rewrites` name as applied.
pub fn applied_to(meta: &BlockMeta) -> BTreeSet<BlockId> {
    let rewrites = meta.thanos.as_ref().and_then(|t| t.unknown.get("rewrites"));
    let entries = rewrites.and_then(|r| r.as_array()).into_iter().flatten();
    let deletions = entries.filter_map(|e| e.get("deletions_applied")?.as_array()).flatten();
    deletions.filter_map(|d| d.get("request_id")?.as_str()?.parse().ok()).collect()
}

/// A name that everyone gives to the same source after the same change: a rewritten block must not count as covered by the one
/// it was made from, but two workers that rewrite it make blocks that cover each other, and the coarser blocks of the same data,
/// rewritten alike, go on to be known as that data's.
pub fn derived_source(source: BlockId, change: &str) -> BlockId {
    use sha2::{Digest, Sha256};
    let sum = Sha256::digest(format!("{source}\n{change}"));
    let random = sum.iter().take(10).fold(0u128, |n, b| n << 8 | u128::from(*b));
    BlockId(ulid::Ulid::from_parts(source.0.timestamp_ms(), random))
}

#[cfg(test)]
mod tests;
