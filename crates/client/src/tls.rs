//! What a client trusts, and what it shows, where it speaks over TLS: made once from PEM, and shared by all connections. It knows no
//! authorities of its own, has no way to trust whoever is there, and shows no key that it was given.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};

/// The authorities whose certificates are taken for a server's, and the certificate of this client, if it has one. Clones share it.
///
/// The certificate of a server has to have the host of its URL as a name, or as an address where that is one. There are no
/// authorities beside those that are given.
///
/// ```no_run
/// use henge_client::{Client, Tls};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let tls = Tls::trusting(&std::fs::read("ca.pem")?)?;
/// let builder = Client::builder("rediss://cache.example:8080")?;
/// let client = builder.tls(tls).connect().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Tls {
    roots: Arc<RootCertStore>,
    config: Arc<ClientConfig>,
}

/// A text in PEM that is not what it should be. Nothing of it is in it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// There is no certificate.
    NoCertificate,
    /// There is no private key.
    NoKey,
    /// There is something that cannot be used, for this reason.
    Unfit(String),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("expected certificates in PEM, and there is none"),
            Self::NoKey => {
                f.write_str("expected a private key in PEM, not encrypted, and there is none")
            }
            Self::Unfit(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for TlsError {}

impl Tls {
    /// Trusts servers whose certificates are by these authorities, given as certificates in PEM.
    pub fn trusting(authorities: &[u8]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(authorities)? {
            roots.add(certificate).map_err(unfit)?;
        }
        let roots = Arc::new(roots);
        let builder = builder()?.with_root_certificates(Arc::clone(&roots));
        Ok(Self {
            roots,
            config: Arc::new(builder.with_no_client_auth()),
        })
    }

    /// The same, and shows servers that ask for one a certificate, given in PEM with those between it and its authority, and its
    /// private key.
    pub fn with_certificate(self, chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain = certificates(chain)?;
        // What the parser says of a text that is none could be a part of a key.
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::NoKey)?;
        let builder = builder()?.with_root_certificates(Arc::clone(&self.roots));
        let config = builder.with_client_auth_cert(chain, key).map_err(unfit)?;
        Ok(Self {
            roots: self.roots,
            config: Arc::new(config),
        })
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

/// The same object, as two that were made of the same text hold sessions of their own.
impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
    }
}

impl Eq for Tls {}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("authorities", &self.roots.len())
            .field(
                "has_certificate",
                &self.config.client_auth_cert_resolver.has_certs(),
            )
            .finish()
    }
}

/// Of the provider that is built in: another one of the process may not be there, or be one that nobody here has tried.
fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unfit)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(TlsError::NoCertificate),
        Ok(found) => Ok(found),
        Err(error) => Err(unfit(error)),
    }
}

fn unfit(error: impl fmt::Display) -> TlsError {
    TlsError::Unfit(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_are_wrong() {
        let broken = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        let cut = "-----BEGIN CERTIFICATE-----\nMAA=\n";
        for (pem, expected) in [
            ("", "expected certificates in PEM"),
            ("nothing", "expected certificates in PEM"),
            (broken, "certificate"),
            (cut, "section"),
        ] {
            let error = Tls::trusting(pem.as_bytes()).expect_err(pem).to_string();
            assert!(error.contains(expected), "{pem:?}: {error}");
        }
    }
}
