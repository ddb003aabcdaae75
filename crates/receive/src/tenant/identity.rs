//! The tenant of a request.
//!
//! Where a certificate field is configured it alone decides: whoever shows no such field is refused, and a header is not
//! looked at, so that nobody can write as somebody else. Otherwise the configured header names the tenant, then Thanos's own
//! header, then the default.

use std::sync::Arc;

use axum::http::{Extensions, HeaderMap, HeaderName};
use chronolith_model::{IdError, TenantId};
use chronolith_service::tls::PeerSubject;

/// Thanos's name for the tenant's header; it is understood whatever name is configured.
pub const TENANT_HEADER: HeaderName = HeaderName::from_static("thanos-tenant");

/// The field of a client certificate's subject that names the tenant (`--receive.tenant-certificate-field`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateField {
    /// `O`.
    Organization,
    /// `OU`.
    OrganizationalUnit,
    /// `CN`.
    CommonName,
}

impl CertificateField {
    /// Thanos's name.
    pub fn as_str(self) -> &'static str {
        match self {
            CertificateField::Organization => "organization",
            CertificateField::OrganizationalUnit => "organizationalUnit",
            CertificateField::CommonName => "commonName",
        }
    }
}

impl std::str::FromStr for CertificateField {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        use CertificateField as F;
        [F::Organization, F::OrganizationalUnit, F::CommonName]
            .into_iter()
            .find(|field| field.as_str() == text)
            .ok_or_else(|| "want organization, organizationalUnit or commonName".to_owned())
    }
}

/// Why a request has no tenant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TenantRefusal {
    /// The name cannot be one.
    #[error(transparent)]
    Name(#[from] IdError),
    /// No client certificate, or one without the field.
    #[error("could not get the {} field from the client certificate", .0.as_str())]
    Certificate(CertificateField),
}

/// How tenants are told apart.
#[derive(Clone, Debug)]
pub struct TenantIdentity {
    /// `--receive.tenant-header`.
    pub header: HeaderName,
    /// `--receive.tenant-certificate-field`.
    pub certificate_field: Option<CertificateField>,
    /// `--receive.default-tenant-id`.
    pub default: TenantId,
}

impl Default for TenantIdentity {
    fn default() -> Self {
        TenantIdentity { header: TENANT_HEADER, certificate_field: None, default: TenantId::default() }
    }
}

impl TenantIdentity {
    /// The tenant of a request with these headers and extensions, among which the listener has put who the client is.
    pub fn of(&self, headers: &HeaderMap, extensions: &Extensions) -> Result<TenantId, TenantRefusal> {
        if let Some(field) = self.certificate_field {
            let subject = extensions.get::<Arc<PeerSubject>>();
            let named = subject.and_then(|subject| match field {
                CertificateField::Organization => subject.organization.as_deref(),
                CertificateField::OrganizationalUnit => subject.organizational_unit.as_deref(),
                CertificateField::CommonName => subject.common_name.as_deref(),
            });
            let named = named.filter(|name| !name.is_empty()).ok_or(TenantRefusal::Certificate(field))?;
            return Ok(TenantId::new(named)?);
        }
        let named = |name: &HeaderName| headers.get(name).filter(|value| !value.is_empty());
        match named(&self.header).or_else(|| named(&TENANT_HEADER)) {
            None => Ok(self.default.clone()),
            Some(value) => Ok(TenantId::new(&String::from_utf8_lossy(value.as_bytes()))?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), axum::http::HeaderValue::from_static(v)))
            .collect()
    }

    #[test]
    fn headers_name_the_tenant() {
        let identity =
            TenantIdentity { header: HeaderName::from_static("x-scope-orgid"), ..TenantIdentity::default() };
        let of = |pairs: &[(&'static str, &'static str)]| {
            identity.of(&headers(pairs), &Extensions::new()).map(|t| t.as_str().to_owned())
        };
        assert_eq!(of(&[]).unwrap(), "default-tenant");
        assert_eq!(of(&[("thanos-tenant", "b")]).unwrap(), "b");
        assert_eq!(of(&[("thanos-tenant", "b"), ("x-scope-orgid", "a")]).unwrap(), "a");
        assert_eq!(of(&[("thanos-tenant", "b"), ("x-scope-orgid", "")]).unwrap(), "b");
        for bad in ["a/b", ".", "..", "a\\b"] {
            assert!(of(&[("x-scope-orgid", bad)]).unwrap_err().to_string().contains("invalid tenant"));
        }
    }

    #[test]
    fn a_certificate_alone_decides() {
        let field = CertificateField::OrganizationalUnit;
        let identity = TenantIdentity { certificate_field: Some(field), ..TenantIdentity::default() };
        let shown = |subject: PeerSubject| {
            let mut extensions = Extensions::new();
            extensions.insert(Arc::new(subject));
            extensions
        };
        let headers = headers(&[("thanos-tenant", "forged")]);
        let unit =
            |name: &str| PeerSubject { organizational_unit: Some(name.into()), ..PeerSubject::default() };
        assert_eq!(identity.of(&headers, &shown(unit("team"))).unwrap().as_str(), "team");
        let refused = TenantRefusal::Certificate(field);
        assert_eq!(identity.of(&headers, &Extensions::new()), Err(refused.clone()));
        let common = PeerSubject { common_name: Some("team".into()), ..PeerSubject::default() };
        assert_eq!(identity.of(&headers, &shown(common)), Err(refused));
        assert!(matches!(identity.of(&headers, &shown(unit(".."))), Err(TenantRefusal::Name(_))));
        assert!("serial".parse::<CertificateField>().is_err());
        assert_eq!("commonName".parse(), Ok(CertificateField::CommonName));
    }
}
