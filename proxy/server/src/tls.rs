//! Certificates of listeners, replaced live.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// The certificate file.
    #[error("cannot read certificates from {file}: {reason}")]
    Certificate {
        /// Which file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// The key file.
    #[error("cannot read a private key from {file}: {reason}")]
    Key {
        /// Which file.
        file: String,
        /// What is wrong.
        reason: String,
    },
}

/// Hands out the certificate of the moment; handshakes under way keep theirs.
#[derive(Debug)]
pub(crate) struct LiveCertificate {
    current: ArcSwap<CertifiedKey>,
}

impl LiveCertificate {
    /// Starts with the certificate in two PEM files.
    ///
    /// # Errors
    /// Files that cannot be read, hold no certificate or key, or do not belong together.
    pub(crate) fn read(cert: &Path, key: &Path) -> Result<Arc<Self>, CertificateError> {
        Ok(Arc::new(Self {
            current: ArcSwap::from_pointee(certified(cert, key)?),
        }))
    }

    /// Takes the files' new content.
    ///
    /// # Errors
    /// As [`Self::read`]; the old certificate then stays.
    pub(crate) fn renew(&self, cert: &Path, key: &Path) -> Result<(), CertificateError> {
        self.current.store(Arc::new(certified(cert, key)?));
        Ok(())
    }
}

impl ResolvesServerCert for LiveCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn certified(cert: &Path, key: &Path) -> Result<CertifiedKey, CertificateError> {
    let of_certificate = |reason: String| CertificateError::Certificate {
        file: cert.display().to_string(),
        reason,
    };
    let of_key = |reason: String| CertificateError::Key {
        file: key.display().to_string(),
        reason,
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|error| of_certificate(error.to_string()))?;
    if chain.is_empty() {
        return Err(of_certificate("it holds none".into()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| of_key(error.to_string()))?;
    let signer = rustls::crypto::ring::sign::any_supported_type(&private)
        .map_err(|error| of_key(error.to_string()))?;
    let certified = CertifiedKey::new(chain, signer);
    certified
        .keys_match()
        .map_err(|error| of_key(format!("it does not belong to the certificate: {error}")))?;
    Ok(certified)
}
