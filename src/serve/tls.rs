//! What a server shows of itself over TLS, and whom it believes.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{Error, InconsistentKeys, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

/// The certificate of a server with its key, and which clients it serves.
///
/// ```no_run
/// # use timely_statefun::serve::{RequestReply, Server, ServerTls};
/// # fn example(functions: impl RequestReply) -> Result<(), Box<dyn std::error::Error>> {
/// let (chain, key) = (std::fs::read("tls.crt")?, std::fs::read("tls.key")?);
/// let clients = std::fs::read("clients-ca.crt")?;
/// let tls = ServerTls::pem(&chain, &key)?.client_roots(&clients)?;
/// let server = Server::new(functions).tls(tls);
/// # drop(server);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ServerTls {
    key: Arc<CertifiedKey>,
    /// Who signs for clients, if they must have a certificate.
    roots: Option<Arc<RootCertStore>>,
}

impl ServerTls {
    /// A certificate, with those between it and its root behind it, and its key, as PEM.
    ///
    /// A key may be of any kind that PEM has (PKCS #8, PKCS #1, SEC 1), for RSA, ECDSA or Ed25519. It is not
    /// encrypted.
    ///
    /// # Errors
    ///
    /// If there is no certificate or no key, either cannot be read, the key is encrypted, or it is that of another
    /// certificate.
    pub fn pem(chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Self, TlsError> {
        let chain = certificates("the chain", chain.as_ref())?;
        let key = key.as_ref();
        let key = match PrivateKeyDer::from_pem_slice(key) {
            // A key that OpenSSL encrypted in the old way looks like any other to whoever does not read its head.
            _ if is_encrypted(key) => return Err(Kind::Encrypted.into()),
            Ok(key) => key,
            Err(pem::Error::NoItemsFound) => {
                return Err(Kind::NoKey.into());
            }
            // What it says may be a part of the key.
            Err(_) => return Err(Kind::Malformed("the key").into()),
        };
        let key = provider().key_provider.load_private_key(key);
        let key = key.map_err(|_| Kind::Malformed("the key"))?;
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            // There are keys that do not say so.
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(_)) => return Err(Kind::Mismatch.into()),
            Err(_) => return Err(Kind::Malformed("the first certificate of the chain").into()),
        }
        Ok(ServerTls { key: Arc::new(key), roots: None })
    }

    /// Serves only clients with a certificate that one of these signs for, as PEM. Default: everybody.
    ///
    /// # Errors
    ///
    /// If there is no certificate, or one cannot be read.
    pub fn client_roots(mut self, roots: impl AsRef<[u8]>) -> Result<Self, TlsError> {
        let mut store = RootCertStore::empty();
        for root in certificates("the clients' roots", roots.as_ref())? {
            store.add(root).map_err(|_| Kind::Malformed("a root of the clients"))?;
        }
        self.roots = Some(Arc::new(store));
        Ok(self)
    }

    pub(super) fn handshake(self, timeout: Duration) -> Handshake {
        let config = ServerConfig::builder_with_provider(provider());
        let config = config.with_safe_default_protocol_versions();
        let config = config.expect("the provider has what these versions need");
        let config = match self.roots {
            None => config.with_no_client_auth(),
            Some(roots) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                let verifier = verifier.build().expect("there are roots, and no lists that revoke");
                config.with_client_cert_verifier(verifier)
            }
        };
        let key = CertifiedKey::clone(&self.key);
        let mut config = config.with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Handshake { acceptor: TlsAcceptor::from(Arc::new(config)), timeout }
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("certificates", &self.key.cert.len())
            .field("client_roots", &self.roots.as_ref().map(|roots| roots.len()))
            .finish_non_exhaustive()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The certificates in a file, of which there is one at least.
fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(Kind::NoCertificate(what).into()),
        Ok(found) => Ok(found),
        Err(_) => Err(Kind::Malformed(what).into()),
    }
}

fn is_encrypted(key: &[u8]) -> bool {
    let marks = [&b"-----BEGIN ENCRYPTED PRIVATE KEY"[..], b"Proc-Type: 4,ENCRYPTED"];
    marks.iter().any(|mark| key.windows(mark.len()).any(|there| there == *mark))
}

/// Why certificates and keys are of no use.
///
/// It never says what is in them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct TlsError(#[from] Kind);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Kind {
    #[error("there is no certificate in {0}")]
    NoCertificate(&'static str),
    #[error("there is no private key")]
    NoKey,
    #[error("the private key is encrypted: decrypt it first, as with `openssl pkey`")]
    Encrypted,
    #[error("the private key is not that of the first certificate of the chain")]
    Mismatch,
    #[error("{0} cannot be read")]
    Malformed(&'static str),
}

impl TlsError {
    /// There is no certificate where there must be one.
    pub fn is_no_certificate(&self) -> bool {
        matches!(self.0, Kind::NoCertificate(_))
    }

    /// There is no private key.
    pub fn is_no_key(&self) -> bool {
        self.0 == Kind::NoKey
    }

    /// The private key is encrypted, and nobody asked for its password.
    pub fn is_encrypted_key(&self) -> bool {
        self.0 == Kind::Encrypted
    }

    /// The private key is that of another certificate.
    pub fn is_key_mismatch(&self) -> bool {
        self.0 == Kind::Mismatch
    }

    /// A certificate or a key is not what it says.
    pub fn is_malformed(&self) -> bool {
        matches!(self.0, Kind::Malformed(_))
    }
}

/// How a connection comes to speak TLS.
pub(super) struct Handshake {
    acceptor: TlsAcceptor,
    timeout: Duration,
}

impl Handshake {
    /// The same connection, if it speaks TLS in time, and before the server is to stop.
    pub(super) async fn shake_hands<S>(
        &self,
        stream: S,
        stop: impl Future<Output = ()>,
    ) -> Option<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut shaken = pin!(timeout(self.timeout, self.acceptor.accept(stream)));
        let mut stop = pin!(stop);
        let shaken = poll_fn(|cx| match shaken.as_mut().poll(cx) {
            Poll::Ready(shaken) => Poll::Ready(Some(shaken)),
            Poll::Pending => stop.as_mut().poll(cx).map(|()| None),
        });
        match shaken.await? {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a connection does not come to speak TLS");
                None
            }
            Err(_) => {
                tracing::debug!(within = ?self.timeout, "a connection does not speak TLS in time");
                None
            }
        }
    }
}
