//! Consistent hashing as Thanos does it: a thousand sections an endpoint, replicas on the endpoints that follow, spread over the
//! availability zones.

use std::collections::BTreeMap;

use xxhash_rust::xxh64::xxh64;

use super::config::{EndpointConfig, HashringError};

/// Sections of one endpoint. Thanos's number: another one moves series.
const SECTIONS_PER_ENDPOINT: usize = 1000;

/// A ketama ring.
#[derive(Debug)]
pub struct Ketama {
    /// Where the sections begin, ascending.
    hashes: Vec<u64>,
    /// Whose section it is.
    owners: Vec<u16>,
    /// The endpoints of each section's replicas, `replication_factor` a section.
    replicas: Vec<u16>,
    replication_factor: usize,
    members: Vec<u16>,
    /// For each value of a hash's upper bits the first section that may hold it: a look-up then walks a section or two instead
    /// of halving thousands.
    starts: Vec<u32>,
    shift: u32,
}

impl Ketama {
    /// A ring of `members`; each has the number by which placements name it.
    pub(super) fn new(
        members: &[(u16, &EndpointConfig)],
        replication_factor: usize,
    ) -> Result<Self, HashringError> {
        if members.len() < replication_factor {
            return Err(HashringError::too_few(members.len(), replication_factor));
        }
        let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, endpoint) in members {
            let next = zones.len();
            zones.entry(&endpoint.az).or_insert(next);
        }
        let zone_of: Vec<usize> = members.iter().map(|(_, e)| zones[e.az.as_str()]).collect();
        // (hash, which of `members`)
        let mut sections: Vec<(u64, usize)> = Vec::with_capacity(members.len() * SECTIONS_PER_ENDPOINT);
        let mut text = String::new();
        for (m, (_, endpoint)) in members.iter().enumerate() {
            text.clear();
            text.push_str(&endpoint.address);
            text.push(':');
            let prefix = text.len();
            for i in 1..=SECTIONS_PER_ENDPOINT {
                text.truncate(prefix);
                text.push_str(&i.to_string());
                sections.push((xxh64(text.as_bytes(), 0), m));
            }
        }
        sections.sort_unstable();
        let mut replicas = Vec::with_capacity(sections.len() * replication_factor);
        let mut taken: Vec<usize> = Vec::with_capacity(replication_factor);
        let mut spread = vec![0usize; zones.len()];
        for first in 0..sections.len() {
            taken.clear();
            spread.fill(0);
            // Thanos walks for ever where the zones cannot be filled evenly; one round without a find is that.
            let (mut at, mut idle) = (first, 0);
            while taken.len() < replication_factor {
                let (_, member) = sections[at];
                at = (at + 1) % sections.len();
                let zone = zone_of[member];
                let least = spread.iter().copied().min().unwrap_or(0);
                if taken.contains(&member) || (zones.len() > 1 && spread[zone] > least) {
                    idle += 1;
                    if idle > sections.len() {
                        return Err(HashringError::new(format!(
                            "{replication_factor} replicas cannot be spread evenly over the {} availability zones: \
                             a zone has too few endpoints",
                            zones.len()
                        )));
                    }
                    continue;
                }
                idle = 0;
                taken.push(member);
                spread[zone] += 1;
            }
            replicas.extend(taken.iter().map(|m| members[*m].0));
        }
        let bits = (usize::BITS - sections.len().leading_zeros()).max(1);
        let shift = 64 - bits;
        let mut starts = Vec::with_capacity(1 << bits);
        let mut section = 0;
        for upper in 0..1u64 << bits {
            while section < sections.len() && sections[section].0 < upper << shift {
                section += 1;
            }
            starts.push(section as u32);
        }
        Ok(Ketama {
            hashes: sections.iter().map(|s| s.0).collect(),
            owners: sections.iter().map(|s| members[s.1].0).collect(),
            replicas,
            replication_factor,
            members: members.iter().map(|m| m.0).collect(),
            starts,
            shift,
        })
    }

    /// The endpoints of all replicas of a hash, the first one first.
    #[inline]
    pub(super) fn endpoints_of(&self, hash: u64) -> &[u16] {
        let section = self.section_at(hash);
        &self.replicas[section * self.replication_factor..][..self.replication_factor]
    }

    /// The first section that begins at or behind `hash`.
    #[inline]
    fn section_at(&self, hash: u64) -> usize {
        let mut section = self.starts[(hash >> self.shift) as usize] as usize;
        while section < self.hashes.len() && self.hashes[section] < hash {
            section += 1;
        }
        if section == self.hashes.len() { 0 } else { section }
    }

    /// All sections in order: where they begin, and whose they are.
    pub(super) fn sections(&self) -> impl Iterator<Item = (u64, u16)> {
        self.hashes.iter().copied().zip(self.owners.iter().copied())
    }

    /// Endpoints in the ring.
    pub(super) fn members(&self) -> &[u16] {
        &self.members
    }
}
