//! TLS to remote functions: whom a client trusts, as whom it goes, and what is said where that fails.
//!
//! Files are read when functions are bound, and never again; what is in keys and passwords is said nowhere.

use std::error::Error as StdError;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pkcs8::{EncryptedPrivateKeyInfoRef, SecretDocument};
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, InconsistentKeys, RootCertStore,
    SignatureScheme,
};

use crate::tls::{Pem, Tls};

const ENCRYPTED: [&str; 2] =
    ["-----BEGIN ENCRYPTED PRIVATE KEY-----", "-----END ENCRYPTED PRIVATE KEY-----"];
/// What stands in a key that OpenSSL encrypted in its own way, before PKCS#8.
const ENCRYPTED_BEFORE: &str = "Proc-Type: 4,ENCRYPTED";

pub(super) const WANTED: &str = "the server wants a certificate of the client";

/// Reads the files.
///
/// # Errors
///
/// If there is one that cannot be read; it is named.
pub(super) fn read(tls: &mut Tls) -> Result<(), String> {
    for (option, pem) in tls.pems_mut() {
        if let Some(file) = &pem.file {
            let bytes = std::fs::read(file);
            pem.bytes = Some(bytes.map_err(|error| wrong(option, pem, &error.to_string()))?.into());
        }
    }
    Ok(())
}

/// How a client speaks TLS.
#[derive(Clone)]
pub(super) struct Secured {
    pub(super) config: ClientConfig,
    asks: Arc<Asks>,
}

impl Secured {
    /// Whether there is a certificate of the client, if a server asked for it.
    pub(super) fn asked(&self) -> Option<bool> {
        self.asks.asked.load(Ordering::Relaxed).then(|| self.asks.has_certs())
    }
}

/// Shows a client's certificate, if it has one, and notes that it was asked for.
#[derive(Debug)]
struct Asks {
    shown: Arc<dyn ResolvesClientCert>,
    asked: AtomicBool,
}

impl ResolvesClientCert for Asks {
    fn resolve(&self, roots: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.shown.resolve(roots, schemes)
    }

    fn has_certs(&self) -> bool {
        self.shown.has_certs()
    }
}

/// How a client speaks TLS, from what a program says.
///
/// # Errors
///
/// What is wrong with a certificate or a key, or missing; a file is named.
pub(super) fn secured(tls: &Tls, http2: bool) -> Result<Secured, String> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots(tls.trusted_roots.as_ref())?);
    let password = tls.client_key_password.as_deref();
    let mut config = match (&tls.client_cert, &tls.client_key) {
        (None, None) if password.is_some() => {
            return Err("there is a client_key_password, and no client_key".to_owned());
        }
        (None, None) => config.with_no_client_auth(),
        (Some(_), None) => return Err("there is a client_cert, and no client_key".to_owned()),
        (None, Some(_)) => return Err("there is a client_key, and no client_cert".to_owned()),
        (Some(cert), Some(key)) => {
            let chain = certificates("client_cert", cert)?;
            let secret = private_key(key, password)?;
            config.with_client_auth_cert(chain, secret).map_err(|error| match error {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    let cert = named("client_cert", cert);
                    wrong("client_key", key, &format!("it does not belong to {cert}"))
                }
                rustls::Error::InvalidCertificate(error) => {
                    wrong("client_cert", cert, &format!("its first certificate is none: {error}"))
                }
                // What else it may say is of the key, which is shown nowhere.
                _ => wrong("client_key", key, "it is none that is understood"),
            })?
        }
    };
    config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    let shown = Arc::clone(&config.client_auth_cert_resolver);
    let asks = Arc::new(Asks { shown, asked: AtomicBool::new(false) });
    config.client_auth_cert_resolver = Arc::<Asks>::clone(&asks);
    Ok(Secured { config, asks })
}

fn roots(given: Option<&Pem>) -> Result<Arc<RootCertStore>, String> {
    let Some(pem) = given else { return system() };
    let mut roots = RootCertStore::empty();
    for (at, certificate) in certificates("trusted_roots", pem)?.into_iter().enumerate() {
        roots.add(certificate).map_err(|error| {
            let number = at + 1;
            wrong("trusted_roots", pem, &format!("its certificate {number} is none: {error}"))
        })?;
    }
    Ok(Arc::new(roots))
}

/// Whom the system trusts, which is found out once; who was found then is trusted for as long as the process
/// lives.
fn system() -> Result<Arc<RootCertStore>, String> {
    static FOUND: Mutex<Option<Arc<RootCertStore>>> = Mutex::new(None);
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(roots) = &*found {
        return Ok(Arc::clone(roots));
    }
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Systems trust old certificates that nobody can read any more.
    roots.add_parsable_certificates(loaded.certs);
    if roots.is_empty() {
        let why = loaded.errors.first().map_or(String::new(), |error| format!(" ({error})"));
        return Err(format!("the system trusts nobody{why}, and there are no trusted_roots"));
    }
    Ok(Arc::clone(found.insert(Arc::new(roots))))
}

/// All certificates, of which there is at least one.
fn certificates(option: &str, pem: &Pem) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes(pem)).collect();
    let certificates =
        certificates.map_err(|error| wrong(option, pem, &format!("it is not PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(wrong(option, pem, "it has no certificate"));
    }
    Ok(certificates)
}

/// The first private key.
fn private_key(pem: &Pem, password: Option<&str>) -> Result<PrivateKeyDer<'static>, String> {
    let wrong = |why: &str| wrong("client_key", pem, why);
    let text = String::from_utf8_lossy(bytes(pem));
    if text.contains(ENCRYPTED_BEFORE) {
        return Err(wrong(
            "it is encrypted as OpenSSL did it before PKCS#8; `openssl pkcs8 -topk8` makes another of it",
        ));
    }
    let encrypted = text.find(ENCRYPTED[0]).map(|begin| {
        let end = text[begin..].find(ENCRYPTED[1]).map(|end| begin + end + ENCRYPTED[1].len());
        end.map(|end| &text[begin..end])
    });
    match (encrypted, password) {
        (Some(encrypted), Some(password)) => {
            let (_, sealed) = encrypted
                .and_then(|encrypted| SecretDocument::from_pem(encrypted).ok())
                .ok_or_else(|| wrong("it is not PEM"))?;
            let sealed = EncryptedPrivateKeyInfoRef::try_from(sealed.as_bytes())
                .map_err(|_| wrong("it is not PKCS#8"))?;
            let open = sealed.decrypt(password).map_err(|_| {
                wrong("client_key_password does not open it, or it is encrypted in no way of PBES2")
            })?;
            Ok(PrivatePkcs8KeyDer::from(open.as_bytes().to_vec()).into())
        }
        (Some(_), None) => Err(wrong("it is encrypted, and there is no client_key_password")),
        (None, Some(_)) => {
            Err(wrong("there is a client_key_password, and no key that is encrypted as PKCS#8"))
        }
        (None, None) => PrivateKeyDer::from_pem_slice(bytes(pem)).map_err(|error| match error {
            rustls::pki_types::pem::Error::NoItemsFound => wrong("it has no private key"),
            _ => wrong("it is not PEM"),
        }),
    }
}

fn bytes(pem: &Pem) -> &[u8] {
    pem.bytes.as_deref().expect("files are read when functions are bound")
}

/// What is wrong with what an option says.
fn wrong(option: &str, pem: &Pem, why: &str) -> String {
    format!("{}: {why}", named(option, pem))
}

fn named(option: &str, pem: &Pem) -> String {
    match pem.file.as_deref().map(Path::display) {
        Some(file) => format!("{option}, \"{file}\""),
        None => option.to_owned(),
    }
}

/// What was wrong with TLS, if that is what an error is about.
pub(super) struct Failed {
    pub(super) text: String,
    /// Whether the two did not come to an understanding, so that nothing was asked.
    pub(super) before_all: bool,
}

/// Looks for what TLS says, however deep.
pub(super) fn failed(error: &(dyn StdError + 'static)) -> Option<Failed> {
    let mut error = Some(error);
    while let Some(found) = error {
        if let Some(found) = found.downcast_ref() {
            return Some(said(found));
        }
        let inner = found.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        error = match inner {
            Some(inner) => Some(inner),
            None => found.source(),
        };
    }
    None
}

fn said(error: &rustls::Error) -> Failed {
    use AlertDescription as Alert;
    use rustls::Error;
    let (words, before_all) = match error {
        Error::InvalidCertificate(why) => (of_certificate(why), true),
        Error::AlertReceived(Alert::CertificateRequired | Alert::NoCertificate) => (WANTED, true),
        Error::AlertReceived(
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError,
        ) => ("the server does not take the certificate of the client", true),
        Error::AlertReceived(Alert::NoApplicationProtocol) | Error::NoApplicationProtocol => {
            ("the server does not speak the HTTP version of the endpoint", true)
        }
        Error::AlertReceived(Alert::UnrecognisedName) => {
            ("the server has no certificate for this name", true)
        }
        // Before there is an understanding, that is. Afterwards, nobody else can speak.
        Error::InvalidMessage(_) => ("what answers does not speak TLS", false),
        _ => ("TLS failed", false),
    };
    Failed { text: format!("{words}: {error}"), before_all }
}

fn of_certificate(why: &CertificateError) -> &'static str {
    match why {
        // Who signed it may have the name of somebody trusted, and another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "nobody who is trusted signed the server's certificate"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the server's certificate is for another name"
        }
        _ => "the server's certificate is not valid",
    }
}
