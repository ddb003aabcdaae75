//! Shuffle sharding: each tenant has a ring of few endpoints of its own, drawn by its name, so that a tenant's flood or bad data
//! reaches few others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use md5::{Digest, Md5};
use parking_lot::Mutex;

use super::config::{EndpointConfig, HashringConfig, HashringError, ShuffleConfig, TenantPatterns};
use super::go_rand::GoRand;
use super::ketama::Ketama;

/// A ring from which tenants' shards are drawn.
#[derive(Debug)]
pub(super) struct Shuffle {
    config: ShuffleConfig,
    members: Vec<(u16, EndpointConfig)>,
    zones: Vec<Zone>,
    replication_factor: usize,
    cache: Mutex<Cache>,
    requests: AtomicU64,
    hits: AtomicU64,
    evicted: AtomicU64,
}

/// The part of the ring that lies in one availability zone; one of all where zones do not matter.
#[derive(Debug, Default)]
struct Zone {
    name: String,
    members: usize,
    /// Where sections begin, and which of the members' numbers owns them.
    sections: Vec<(u64, u16)>,
}

#[derive(Debug, Default)]
struct Cache {
    rings: HashMap<String, (Arc<Ketama>, u64)>,
    clock: u64,
}

/// How a ring's cache of shards is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardCacheStats {
    /// Look-ups.
    pub requests: u64,
    /// Look-ups that found the shard.
    pub hits: u64,
    /// Shards that were put out for others.
    pub evicted: u64,
    /// Shards held.
    pub items: usize,
    /// The most that are held.
    pub items_max: usize,
}

impl Shuffle {
    /// Shards of `base`, whose members are `members`. Sizes that cannot work are refused.
    pub(super) fn new(
        config: &HashringConfig,
        members: &[(u16, &EndpointConfig)],
        base: Ketama,
        replication_factor: usize,
    ) -> Result<Self, HashringError> {
        let shuffle = config.shuffle.clone();
        let zone_name = |e: &EndpointConfig| {
            if shuffle.zone_awareness_disabled { String::new() } else { e.az.clone() }
        };
        let mut zones: BTreeMap<String, Zone> = BTreeMap::new();
        let mut zone_of: HashMap<u16, String> = HashMap::new();
        for (id, endpoint) in members {
            let name = zone_name(endpoint);
            let zone = zones.entry(name.clone()).or_default();
            zone.name.clone_from(&name);
            zone.members += 1;
            zone_of.insert(*id, name);
        }
        for (hash, owner) in base.sections() {
            let zone = zones.get_mut(&zone_of[&owner]).expect("every owner is a member");
            zone.sections.push((hash, owner));
        }
        let this = Shuffle {
            members: members.iter().map(|(id, e)| (*id, (*e).clone())).collect(),
            zones: zones.into_values().collect(),
            replication_factor,
            cache: Mutex::default(),
            requests: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            config: shuffle,
        };
        let sizes =
            std::iter::once(this.config.shard_size).chain(this.config.overrides.iter().map(|o| o.shard_size));
        for size in sizes {
            this.check_size(size)?;
        }
        Ok(this)
    }

    /// Endpoints that a shard of `size` takes from each zone.
    fn take(&self, size: usize) -> usize {
        if self.config.zone_awareness_disabled { size } else { size.div_ceil(self.zones.len()) }
    }

    fn check_size(&self, size: usize) -> Result<(), HashringError> {
        let take = self.take(size);
        if let Some(zone) = self.zones.iter().find(|z| z.members < take) {
            let place = if zone.name.is_empty() {
                String::new()
            } else {
                format!(" of availability zone {}", zone.name)
            };
            return Err(HashringError::new(format!(
                "shard size {size} takes {take} endpoints, but there are {}{place}",
                zone.members
            )));
        }
        let got = take * self.zones.len();
        if got < self.replication_factor {
            return Err(HashringError::new(format!(
                "shard size {size} gives {got} endpoints, fewer than the replication factor, {}",
                self.replication_factor
            )));
        }
        Ok(())
    }

    fn size_of(&self, tenant: &str) -> usize {
        let over = self.config.overrides.iter().find(|o| match &o.tenants {
            // Thanos: an override that names no matcher type matches nobody.
            TenantPatterns::Unspecified(_) => false,
            named => named.take(tenant),
        });
        over.map_or(self.config.shard_size, |o| o.shard_size)
    }

    /// The tenant's own ring.
    pub(super) fn shard_of(&self, tenant: &str) -> Result<Arc<Ketama>, HashringError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        {
            let mut cache = self.cache.lock();
            cache.clock += 1;
            let now = cache.clock;
            if let Some((ring, used)) = cache.rings.get_mut(tenant) {
                *used = now;
                self.hits.fetch_add(1, Ordering::Relaxed);
                return Ok(Arc::clone(ring));
            }
        }
        let ring = Arc::new(self.draw(tenant)?);
        let mut cache = self.cache.lock();
        if cache.rings.len() >= self.config.cache_size {
            let oldest = cache.rings.iter().min_by_key(|(_, (_, used))| *used).map(|(t, _)| t.clone());
            if let Some(oldest) = oldest {
                cache.rings.remove(&oldest);
                self.evicted.fetch_add(1, Ordering::Relaxed);
            }
        }
        let now = cache.clock;
        cache.rings.insert(tenant.to_owned(), (Arc::clone(&ring), now));
        Ok(ring)
    }

    fn draw(&self, tenant: &str) -> Result<Ketama, HashringError> {
        let take = self.take(self.size_of(tenant));
        let mut drawn: Vec<u16> = Vec::with_capacity(take * self.zones.len());
        for zone in &self.zones {
            let mut rand = GoRand::new(seed(tenant, &zone.name));
            let first = drawn.len();
            for _ in 0..take {
                let position = rand.next_u64();
                let start = zone.sections.partition_point(|(hash, _)| *hash < position);
                let around =
                    (0..zone.sections.len()).map(|j| zone.sections[(start + j) % zone.sections.len()].1);
                let mut fresh = around.filter(|owner| !drawn[first..].contains(owner));
                if let Some(owner) = fresh.next() {
                    drop(fresh);
                    drawn.push(owner);
                }
            }
        }
        let members: Vec<(u16, &EndpointConfig)> =
            self.members.iter().filter(|(id, _)| drawn.contains(id)).map(|(id, e)| (*id, e)).collect();
        Ketama::new(&members, self.replication_factor)
    }

    pub(super) fn stats(&self) -> ShardCacheStats {
        ShardCacheStats {
            requests: self.requests.load(Ordering::Relaxed),
            hits: self.hits.load(Ordering::Relaxed),
            evicted: self.evicted.load(Ordering::Relaxed),
            items: self.cache.lock().rings.len(),
            items_max: self.config.cache_size,
        }
    }
}

/// First eight bytes of the MD5 of the tenant and, where there are zones, of a zero byte and the zone.
fn seed(tenant: &str, zone: &str) -> i64 {
    let mut hash = Md5::new();
    hash.update(tenant.as_bytes());
    if !zone.is_empty() {
        hash.update([0]);
        hash.update(zone.as_bytes());
    }
    let sum = hash.finalize();
    i64::from_be_bytes(sum[..8].try_into().expect("an MD5 has 16 bytes"))
}
