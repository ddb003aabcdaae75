//! Hashrings: which receivers keep a series of a tenant. Pure: no file, no network.
//!
//! ```text
//! file ─ config ─┬─ tenants (exact, glob) ─ first ring that matches ─ hashmod │ ketama │ ketama of a tenant's shard
//! series ─ hash of tenant and labels ────────────────────────────────────────┴─ one endpoint a replica
//! ```
//!
//! Placement is Thanos's to the series, so that receivers of both kinds can stand in one ring, and the binary can be swapped
//! without moving a series; `testdata/hashring` holds what Thanos's own code answers. What a file says wrongly is refused when it
//! is read, with the place in the file, where Thanos refuses each write later.

mod config;
mod glob;
mod go_rand;
mod go_rand_table;
mod hash;
mod ketama;
mod shuffle;

use std::sync::Arc;

use chronolith_model::Labels;
use hashbrown::HashMap;
use parking_lot::RwLock;

pub(crate) use config::FILE_BYTES_MAX;
pub use config::parse;
pub use config::{Algorithm, EndpointConfig, HashringConfig, HashringError, ShuffleConfig};
pub use hash::SeriesHash;
use ketama::Ketama;
pub use shuffle::ShardCacheStats;
use shuffle::Shuffle;

/// Tenants whose ring is remembered; beyond it the rings' tenant lists are searched each time.
const TENANTS_REMEMBERED_MAX: usize = 50_000;

/// All hashrings of a file, ready to place series.
#[derive(Debug)]
pub struct Hashrings {
    endpoints: Vec<EndpointConfig>,
    rings: Vec<Ring>,
    replication_factor: usize,
    /// Ring of each tenant seen; `None` for a tenant that no ring takes.
    tenants: RwLock<HashMap<String, Option<usize>>>,
}

#[derive(Debug)]
struct Ring {
    config: HashringConfig,
    placement: Placement,
}

#[derive(Debug)]
enum Placement {
    /// Endpoints sorted by address.
    Hashmod(Arc<[u16]>),
    Ketama(Arc<Ketama>),
    Shuffle(Box<Shuffle>),
}

/// A tenant's ring.
#[derive(Clone, Debug)]
pub enum TenantRing {
    /// The hash modulo the number of endpoints.
    Hashmod(Arc<[u16]>),
    /// Consistent hashing.
    Ketama(Arc<Ketama>),
}

/// No hashring takes the tenant, or its shard cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// Every ring lists tenants, and none lists this one.
    #[error("no hashring takes tenant {0:?}")]
    NoRing(String),
    /// The tenant's shard has too few endpoints.
    #[error("tenant {tenant:?}: {source}")]
    Shard {
        /// Whose shard.
        tenant: String,
        /// Why.
        source: HashringError,
    },
}

impl Hashrings {
    /// The rings of a file. Rings without an algorithm of their own use `algorithm`.
    ///
    /// # Errors
    /// What cannot work: hashmod with zones or shards, fewer endpoints than replicas, shards larger than their zone.
    pub fn new(
        configs: Vec<HashringConfig>,
        algorithm: Algorithm,
        replication_factor: usize,
    ) -> Result<Self, HashringError> {
        let mut endpoints: Vec<EndpointConfig> = Vec::new();
        let mut index_of: HashMap<String, u16> = HashMap::new();
        let mut rings = Vec::with_capacity(configs.len());
        for (i, config) in configs.into_iter().enumerate() {
            let mut ids = Vec::with_capacity(config.endpoints.len());
            for endpoint in &config.endpoints {
                let next = endpoints.len();
                let id = *index_of.entry(endpoint.address.clone()).or_insert(next as u16);
                if usize::from(id) == next {
                    endpoints.push(endpoint.clone());
                }
                ids.push(id);
            }
            let placement = Placement::new(&config, &ids, algorithm, replication_factor)
                .map_err(|e| e.in_ring(i, &config.name))?;
            rings.push(Ring { config, placement });
        }
        Ok(Hashrings { endpoints, rings, replication_factor, tenants: RwLock::default() })
    }

    /// Every endpoint once, in the order in which the file names them; placements are indexes into it.
    pub fn endpoints(&self) -> &[EndpointConfig] {
        &self.endpoints
    }

    /// Replicas of a series.
    pub fn replication_factor(&self) -> usize {
        self.replication_factor
    }

    /// The rings as configured.
    pub fn configs(&self) -> impl Iterator<Item = &HashringConfig> {
        self.rings.iter().map(|r| &r.config)
    }

    /// Use of the caches of tenants' shards, by ring.
    pub fn shard_caches(&self) -> impl Iterator<Item = (&str, ShardCacheStats)> {
        self.rings.iter().filter_map(|ring| match &ring.placement {
            Placement::Shuffle(shuffle) => Some((ring.config.name.as_str(), shuffle.stats())),
            _ => None,
        })
    }

    /// The ring that takes a tenant: the first one that matches.
    pub fn ring_of(&self, tenant: &str) -> Result<TenantRing, PlacementError> {
        let Some(index) = self.index_of(tenant) else {
            return Err(PlacementError::NoRing(tenant.to_owned()));
        };
        match &self.rings[index].placement {
            Placement::Hashmod(ids) => Ok(TenantRing::Hashmod(Arc::clone(ids))),
            Placement::Ketama(ring) => Ok(TenantRing::Ketama(Arc::clone(ring))),
            Placement::Shuffle(shuffle) => match shuffle.shard_of(tenant) {
                Ok(ring) => Ok(TenantRing::Ketama(ring)),
                Err(source) => Err(PlacementError::Shard { tenant: tenant.to_owned(), source }),
            },
        }
    }

    /// Labels that a ring adds to what its receivers keep of a tenant. As in Thanos only the tenants that a ring lists by their
    /// very names have them, of the first such ring.
    pub fn external_labels(&self, tenant: &str) -> Option<&Labels> {
        let ring = self.configs().find(|config| config.tenants.texts().contains(&tenant))?;
        (!ring.external_labels.is_empty()).then_some(&ring.external_labels)
    }

    fn index_of(&self, tenant: &str) -> Option<usize> {
        if let Some(known) = self.tenants.read().get(tenant) {
            return *known;
        }
        let found = self.rings.iter().position(|ring| ring.config.takes(tenant));
        let mut tenants = self.tenants.write();
        if tenants.len() < TENANTS_REMEMBERED_MAX {
            tenants.insert(tenant.to_owned(), found);
        }
        found
    }
}

impl Placement {
    fn new(
        config: &HashringConfig,
        ids: &[u16],
        algorithm: Algorithm,
        replication_factor: usize,
    ) -> Result<Self, HashringError> {
        match config.algorithm.unwrap_or(algorithm) {
            Algorithm::Hashmod => {
                if let Some(e) = config.endpoints.iter().find(|e| !e.az.is_empty()) {
                    return Err(HashringError::new(format!(
                        "endpoint {}: hashmod knows no availability zones: use ketama, or remove az",
                        e.address
                    )));
                }
                if config.shuffle.shard_size > 0 {
                    return Err(HashringError::new(
                        "hashmod knows no shuffle sharding: use ketama, or remove shuffle_sharding_config",
                    ));
                }
                if ids.len() < replication_factor {
                    return Err(HashringError::too_few(ids.len(), replication_factor));
                }
                let mut sorted: Vec<usize> = (0..ids.len()).collect();
                sorted.sort_by(|a, b| config.endpoints[*a].address.cmp(&config.endpoints[*b].address));
                Ok(Placement::Hashmod(sorted.into_iter().map(|i| ids[i]).collect()))
            }
            Algorithm::Ketama => {
                let members: Vec<(u16, &EndpointConfig)> =
                    ids.iter().copied().zip(&config.endpoints).collect();
                let ring = Ketama::new(&members, replication_factor)?;
                if config.shuffle.shard_size == 0 {
                    return Ok(Placement::Ketama(Arc::new(ring)));
                }
                Ok(Placement::Shuffle(Box::new(Shuffle::new(config, &members, ring, replication_factor)?)))
            }
        }
    }
}

impl TenantRing {
    /// The endpoint that keeps replica `n`, counted from 0, of the series with this hash.
    #[inline]
    pub fn endpoint(&self, hash: SeriesHash, n: usize) -> u16 {
        match self {
            TenantRing::Hashmod(ids) => {
                // Thanos adds before it divides, so the sum may wrap.
                ids[(hash.0.wrapping_add(n as u64) % ids.len() as u64) as usize]
            }
            TenantRing::Ketama(ring) => ring.endpoints_of(hash.0)[n],
        }
    }

    /// The endpoints that the ring has.
    pub fn endpoints(&self) -> &[u16] {
        match self {
            TenantRing::Hashmod(ids) => ids,
            TenantRing::Ketama(ring) => ring.members(),
        }
    }
}

#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod wrong_files_tests;
