//! TLS to the servers of outgoing requests: which certificates are believed, and with which name.

use std::str::FromStr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::Host;

use super::{Failure, StartError};

/// Authorities that servers' certificates may be signed by besides the known ones.
#[derive(Debug, Clone, Default)]
pub struct Authorities(Vec<CertificateDer<'static>>);

/// A file that holds none.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AuthoritiesError(String);

impl FromStr for Authorities {
    type Err = AuthoritiesError;

    /// Reads the file of this name, in PEM.
    fn from_str(file: &str) -> Result<Self, AuthoritiesError> {
        let told = |error: rustls::pki_types::pem::Error| AuthoritiesError(error.to_string());
        let certificates: Vec<_> =
            CertificateDer::pem_file_iter(file).map_err(told)?.collect::<Result<_, _>>().map_err(told)?;
        // What is no authority is a mistake of this file, not of the first request.
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|error| AuthoritiesError(error.to_string()))?;
        }
        if certificates.is_empty() {
            return Err(AuthoritiesError("it holds no certificate in PEM".to_owned()));
        }
        Ok(Self(certificates))
    }
}

pub(super) struct Tls(TlsConnector);

impl Tls {
    /// Believes Mozilla's list of authorities, and others.
    pub(super) fn new(others: &Authorities) -> Result<Self, StartError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.into() };
        roots.add_parsable_certificates(others.0.iter().cloned());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| StartError::Tls(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Agrees with the server on a key, and checks that its certificate is for `host`.
    pub(super) async fn connect(
        &self,
        host: &Host,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        let name = match host {
            Host::Domain(name) => ServerName::try_from(name.clone())
                .map_err(|_| Failure::Tls(format!("{name} is not the name of a server")))?,
            Host::Ipv4(address) => ServerName::from(*address),
            Host::Ipv6(address) => ServerName::from(*address),
        };
        self.0.connect(name, stream).await.map_err(|error| failure(&error))
    }
}

fn failure(error: &std::io::Error) -> Failure {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(reason)) => Failure::Certificate(reason.to_string()),
        Some(rustls::Error::AlertReceived(alert)) => {
            Failure::TlsAlert { id: u8::from(*alert), message: format!("{alert:?}") }
        }
        Some(other) => Failure::Tls(other.to_string()),
        None => Failure::Tls(error.to_string()),
    }
}
