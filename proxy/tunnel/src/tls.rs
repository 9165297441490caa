//! Who the ends are to each other: the gateway's certificate, and what an agent trusts.

use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::Error;

/// The protocol in the TLS handshake; a program that does not know it fails there.
const ALPN: &[u8] = b"weir-tunnel/1";

/// A certificate chain with its key.
pub struct ServerTls {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl ServerTls {
    /// From DER.
    #[must_use]
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        Self { chain, key }
    }

    /// From the text of PEM files: the certificate first, then those that signed it; one key.
    ///
    /// # Errors
    /// [`Error::Tls`] when there is no certificate or no key in them.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, Error> {
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| Error::Tls(format!("the key cannot be read: {error}")))?;
        Ok(Self {
            chain: certificates(chain)?,
            key,
        })
    }

    pub(crate) fn config(&self) -> Result<Arc<QuicServerConfig>, Error> {
        let mut config =
            rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_protocol_versions(&[&TLS13])
                .map_err(unusable)?
                .with_no_client_auth()
                .with_single_cert(self.chain.clone(), self.key.clone_key())
                .map_err(unusable)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        QuicServerConfig::try_from(config)
            .map(Arc::new)
            .map_err(|error| Error::Tls(error.to_string()))
    }
}

/// The certificates in the text of a PEM file.
///
/// # Errors
/// [`Error::Tls`] when there is none, or one cannot be read.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain =
        chain.map_err(|error| Error::Tls(format!("a certificate cannot be read: {error}")))?;
    if chain.is_empty() {
        return Err(Error::Tls(
            "there is no certificate in the PEM text".to_owned(),
        ));
    }
    Ok(chain)
}

/// Which gateways an agent trusts.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Those with a certificate for their name that one of these signed, and those whose
    /// certificate is one of these, whatever its name: a self-signed one is pinned so.
    Certificates(Vec<CertificateDer<'static>>),
    /// All. Whoever sits in between can take the worker's token and read the requests.
    Anyone,
}

impl Trust {
    pub(crate) fn config(&self) -> Result<Arc<QuicClientConfig>, Error> {
        let provider = Arc::new(ring::default_provider());
        let verifier = Verifier {
            provider: Arc::clone(&provider),
            trusted: match self {
                Self::Anyone => None,
                Self::Certificates(certificates) => Some(Trusted::new(certificates, &provider)?),
            },
        };
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        QuicClientConfig::try_from(config)
            .map(Arc::new)
            .map_err(|error| Error::Tls(error.to_string()))
    }
}

#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// `None` trusts anyone.
    trusted: Option<Trusted>,
}

#[derive(Debug)]
struct Trusted {
    pinned: Vec<CertificateDer<'static>>,
    chains: Arc<WebPkiServerVerifier>,
}

impl Trusted {
    fn new(
        certificates: &[CertificateDer<'static>],
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(certificates.iter().cloned());
        if added == 0 {
            return Err(Error::Tls(
                "none of the trusted certificates can be used".to_owned(),
            ));
        }
        let chains =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
                .map_err(|error| Error::Tls(error.to_string()))?;
        Ok(Self {
            pinned: certificates.to_vec(),
            chains,
        })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(trusted) = &self.trusted else {
            return Ok(ServerCertVerified::assertion());
        };
        if trusted.pinned.iter().any(|pinned| pinned == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        trusted.chains.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )
    }

    /// Never asked for: QUIC is TLS 1.3.
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn unusable(error: rustls::Error) -> Error {
    Error::Tls(error.to_string())
}
