//! TLS for whatever speaks on the port: certificates from files, read again at each reload, and who a client is by its own.
//! What passes over it is nobody's business here.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoClientAuth, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, ServerConnection};

use crate::config::{Config, shown};
use crate::encryption::private::{self, FILE_BYTES_MAX, FileError};

/// A chain of certificates, or those of some authorities, is a few KiB long.
const CERTIFICATES_BYTES_MAX: u64 = 1 << 20;

/// What new connections are spoken to with; none where there is no certificate.
#[derive(Debug, Default)]
pub(crate) struct Tls(ArcSwapOption<Certified>);

/// What connections are spoken to with.
#[derive(Debug)]
pub(crate) struct Certified {
    config: Arc<ServerConfig>,
    /// When the first of its certificates ends, in seconds since 1970; none where one of them cannot be read.
    expires_at_s: Option<u64>,
}

/// Why there is no TLS. Nothing of a key is in it.
#[derive(Debug)]
pub struct TlsError {
    path: PathBuf,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Read(io::Error),
    Mode(u32),
    NoFile,
    Long(u64),
    NoCertificate,
    NoKey,
    /// What the library says of it.
    Unfit(String),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", shown(&self.path))?;
        match &self.why {
            Why::Read(error) => write!(f, "the file cannot be read: {error}"),
            Why::Mode(mode) => write!(
                f,
                "others than its owner may use the private key (mode {mode:04o}); expected 0600 or 0400"
            ),
            Why::NoFile => f.write_str("expected a file, and it is none"),
            Why::Long(most) => write!(f, "the file is larger than {most} bytes"),
            Why::NoCertificate => f.write_str("expected certificates in PEM, and there is none"),
            Why::NoKey => {
                f.write_str("expected a private key in PEM, not encrypted, and there is none")
            }
            Why::Unfit(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.why {
            Why::Read(error) => Some(error),
            _ => None,
        }
    }
}

impl Tls {
    pub(crate) fn new(certified: Option<Certified>) -> Self {
        Self(ArcSwapOption::new(certified.map(Arc::new)))
    }

    /// Has new connections spoken to with this; those that are open stay as they are.
    pub(crate) fn set(&self, certified: Option<Certified>) {
        self.0.store(certified.map(Arc::new));
    }

    /// What a connection that begins now is spoken to with.
    pub(crate) fn config(&self) -> Option<Arc<ServerConfig>> {
        let certified = self.0.load();
        certified
            .as_ref()
            .map(|certified| Arc::clone(&certified.config))
    }

    /// When the certificate ends that new connections are shown, or another of its chain before it, in seconds since 1970.
    pub(crate) fn expires_at_s(&self) -> Option<u64> {
        let certified = self.0.load();
        certified.as_ref()?.expires_at_s
    }
}

/// What the files that a configuration names say; none where it names no certificate.
pub(crate) fn read(config: &Config) -> Result<Option<Certified>, TlsError> {
    let tls = &config.tls;
    let (Some(certificate), Some(key)) = (&tls.certificate_file, &tls.key_file) else {
        return Ok(None);
    };
    let (chain_path, key_path) = (certificate.as_path(), key.as_path());
    let chain = certificates(chain_path)?;
    let expires_at_s = expires_at_s(&chain);
    let key = private_key(key_path)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let unfit = |path: &Path, why: String| TlsError {
        path: path.to_owned(),
        why: Why::Unfit(why),
    };
    let verifier = match &tls.client_ca_file {
        None => Arc::new(NoClientAuth),
        Some(file) => {
            let path = file.as_path();
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots
                    .add(certificate)
                    .map_err(|error| unfit(path, error.to_string()))?;
            }
            // Who shows none may have an API key.
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .allow_unauthenticated()
                .build()
                .map_err(|error| unfit(path, error.to_string()))?
        }
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unfit(chain_path, error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| {
            unfit(
                chain_path,
                format!("{error}, with the key of {}", shown(key_path)),
            )
        })?;
    if tls.client_ca_file.is_some() {
        // Who resumes a session shows no certificate again, and the one of then may have run out.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(Some(Certified {
        config: Arc::new(config),
        expires_at_s,
    }))
}

/// When the first of these ends. What a client may take and this cannot read has no end that is known.
fn expires_at_s(chain: &[CertificateDer<'_>]) -> Option<u64> {
    let ends = chain.iter().map(|certificate| {
        let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let ends_at_s = certificate.validity().not_after.timestamp();
        // One that ended before 1970 ends none too late.
        Some(u64::try_from(ends_at_s).unwrap_or(0))
    });
    ends.collect::<Option<Vec<u64>>>()?.into_iter().min()
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |why| TlsError {
        path: path.to_owned(),
        why,
    };
    let metadata = fs::metadata(path).map_err(|error| failed(Why::Read(error)))?;
    if !metadata.is_file() {
        return Err(failed(Why::NoFile));
    }
    if metadata.len() > CERTIFICATES_BYTES_MAX {
        return Err(failed(Why::Long(CERTIFICATES_BYTES_MAX)));
    }
    let pem = fs::read(path).map_err(|error| failed(Why::Read(error)))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(failed(Why::NoCertificate)),
        Ok(found) => Ok(found),
        Err(error) => Err(failed(Why::Unfit(error.to_string()))),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let failed = |why| TlsError {
        path: path.to_owned(),
        why,
    };
    let pem = private::read(path).map_err(|error| {
        failed(match error {
            FileError::Read(error) => Why::Read(error),
            FileError::Mode(mode) => Why::Mode(mode),
            FileError::NoFile => Why::NoFile,
            FileError::Long => Why::Long(FILE_BYTES_MAX),
        })
    })?;
    // What the parser says of a file that is none could be a part of a key.
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| failed(Why::NoKey))
}

/// The names in the certificate that a client has shown, and that was found to be of an authority that is trusted.
pub(crate) fn names_of_client(connection: &ServerConnection) -> Vec<String> {
    let Some(certificate) = connection.peer_certificates().and_then(<[_]>::first) else {
        return Vec::new();
    };
    let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else {
        return Vec::new();
    };
    let names = certificate.valid_dns_names();
    names.map(str::to_ascii_lowercase).collect()
}
