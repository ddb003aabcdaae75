//! Ids: tenants, blocks, series references, resolutions.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Why an id was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A tenant name that cannot be a directory name of its own.
    #[error(
        "invalid tenant {0:?}: a tenant is 1 to 150 bytes, without '/', '\\', control characters, '.' or '..'"
    )]
    Tenant(String),
    /// Not a ULID.
    #[error("invalid block id {0:?}: not a ULID")]
    Block(String),
}

/// A tenant's name. It ends up as a directory name, so what could leave the directory is refused.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

impl TenantId {
    /// The longest name, in bytes (Mimir's bound; it leaves room in a 255-byte file name).
    pub const BYTES_MAX: usize = 150;
    /// The tenant of writers that name none (Thanos's `--receive.default-tenant-id`).
    pub const DEFAULT: &'static str = "default-tenant";

    /// Checks and keeps a name.
    pub fn new(name: &str) -> Result<Self, IdError> {
        let bad = name.is_empty()
            || name.len() > Self::BYTES_MAX
            || name == "."
            || name == ".."
            || name.chars().any(|c| c == '/' || c == '\\' || c.is_control());
        if bad {
            Err(IdError::Tenant(name.chars().take(64).collect()))
        } else {
            Ok(TenantId(Arc::from(name)))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TenantId {
    fn default() -> Self {
        TenantId(Arc::from(Self::DEFAULT))
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// A block's name, a ULID.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub ulid::Ulid);

impl FromStr for BlockId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        ulid::Ulid::from_string(text)
            .ok()
            // The decoder takes lower case and overflowing first letters too; a directory name is canonical.
            .filter(|id| id.to_string() == text)
            .map(BlockId)
            .ok_or_else(|| IdError::Block(text.chars().take(64).collect()))
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Opaque id of a series inside one head or one block, never comparable across them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesRef(pub u64);

/// Downsampling level of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resolution {
    /// Samples as they came.
    #[default]
    Raw,
    /// Five-minute aggregates.
    FiveMinutes,
    /// One-hour aggregates.
    OneHour,
}

impl Resolution {
    /// Milliseconds between samples of this level; 0 for raw.
    pub const fn ms(self) -> i64 {
        match self {
            Resolution::Raw => 0,
            Resolution::FiveMinutes => 300_000,
            Resolution::OneHour => 3_600_000,
        }
    }

    /// The level with exactly this spacing.
    pub const fn from_ms(ms: i64) -> Option<Self> {
        match ms {
            0 => Some(Resolution::Raw),
            300_000 => Some(Resolution::FiveMinutes),
            3_600_000 => Some(Resolution::OneHour),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_cannot_leave_their_directory() {
        for ok in ["a", "team-a", "Ünï", "a.b", "..."] {
            assert!(TenantId::new(ok).is_ok(), "{ok}");
        }
        for bad in ["", ".", "..", "a/b", "a\\b", "a\nb", &"x".repeat(151)] {
            assert!(TenantId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn block_ids_are_canonical_ulids() {
        assert!("01ARZ3NDEKTSV4RRFFQ69G5FAV".parse::<BlockId>().is_ok());
        for bad in ["01arz3ndektsv4rrffq69g5fav", "", "thanos", "81ARZ3NDEKTSV4RRFFQ69G5FAV"] {
            assert!(bad.parse::<BlockId>().is_err(), "{bad}");
        }
    }
}
