//! The same over TLS: who is believed, and which files are of no use.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use timely_statefun::serve::{ServerTls, TlsError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream as Stream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::*;

/// Who signs.
struct Signer(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
struct Signed {
    certificate: String,
    key: String,
}

impl Signer {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Signer(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn root(&self) -> String {
        self.0.pem()
    }

    fn sign(&self) -> Signed {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Signed { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

impl Signed {
    fn tls(&self) -> Result<ServerTls, TlsError> {
        ServerTls::pem(&self.certificate, &self.key)
    }
}

/// Connects to a server that this root signs for.
async fn connect(
    serving: &Serving,
    root: &Signer,
    client: Option<&Signed>,
    protocol: &[u8],
) -> std::io::Result<TlsStream<Stream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root.root().as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots);
    let mut config = match client {
        None => config.with_no_client_auth(),
        Some(client) => {
            let chain = CertificateDer::from_pem_slice(client.certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(client.key.as_bytes()).unwrap();
            config.with_client_auth_cert(vec![chain], key).unwrap()
        }
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = Stream::connect(serving.local_addr().unwrap()).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Asks once over HTTP/1.1, and gives what comes until the end.
async fn ask(stream: &mut TlsStream<Stream>) -> std::io::Result<String> {
    let head = "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello";
    stream.write_all(head.as_bytes()).await?;
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await?;
    Ok(String::from_utf8(said).unwrap())
}

#[test]
fn both_versions_are_spoken_over_tls() {
    let (echo, root) = (Echo::default(), Signer::new());
    let serving = echo.serve(|server| server.tls(root.sign().tls().unwrap()));
    assert!(serving.url().starts_with("https://127.0.0.1:"));
    within(async {
        let mut stream = connect(&serving, &root, None, b"http/1.1").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let said = ask(&mut stream).await.unwrap();
        assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.ends_with("\r\nhello"), "{said}");
    });
    let send = within(async {
        let stream = connect(&serving, &root, None, b"h2").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        send
    });
    let mut client = Http2 { send };
    assert_eq!(client.ask("hello"), (200, b"hello".to_vec()));
    let waiting = client.post("wait");
    until("it is asked", || echo.asked() == 3);
    let shutdown = runtime().spawn(serving.shutdown());
    echo.let_go(1);
    assert_eq!(within(waiting).unwrap().unwrap().0, 200);
    assert!(within(shutdown).unwrap().is_graceful());
}

#[test]
fn clients_are_who_they_say_where_that_is_asked() {
    let (echo, root, other) = (Echo::default(), Signer::new(), Signer::new());
    let tls = root.sign().tls().unwrap().client_roots(root.root()).unwrap();
    let serving = echo.serve(|server| server.tls(tls));
    let asked = |client: Option<Signed>| {
        within(async {
            let mut stream = connect(&serving, &root, client.as_ref(), b"http/1.1").await?;
            ask(&mut stream).await
        })
    };
    assert!(asked(Some(root.sign())).unwrap().starts_with("HTTP/1.1 200"));
    assert!(asked(None).is_err());
    assert!(asked(Some(other.sign())).is_err());
    assert_eq!(echo.asked(), 1);
}

#[test]
fn who_does_not_speak_tls_is_cut() {
    let (echo, root) = (Echo::default(), Signer::new());
    let tls = root.sign().tls().unwrap();
    let serving = echo.serve(|server| server.tls(tls.clone()).handshake_timeout(SHORT));
    Caller::of(&serving).ends();
    let mut plain = Caller::of(&serving);
    plain.post("hello");
    let mut said = Vec::new();
    let _ = plain.reader.read_to_end(&mut said);
    assert!(!said.starts_with(b"HTTP"));
    // A handshake is nothing that a shutdown waits for.
    let serving = echo.serve(|server| server.tls(tls).handshake_timeout(LONG));
    let mut silent = Caller::of(&serving);
    // Who came later is there, and so is who came before.
    within(async {
        let mut stream = connect(&serving, &root, None, b"http/1.1").await.unwrap();
        ask(&mut stream).await.unwrap();
    });
    assert!(within(serving.shutdown()).is_graceful());
    silent.ends();
    assert_eq!(echo.asked(), 1);
}

#[test]
fn files_that_are_of_no_use_are_errors_that_say_so_and_nothing_of_what_is_in_them() {
    let root = Signer::new();
    let (one, two) = (root.sign(), root.sign());
    let secret: String = one.key.lines().nth(1).unwrap().chars().take(20).collect();
    let pem = |chain: &str, key: &str| {
        let error = ServerTls::pem(chain, key).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(&secret));
        error
    };
    let error = pem(&one.key, &one.key);
    assert!(error.is_no_certificate());
    assert_eq!(error.to_string(), "there is no certificate in the chain");
    assert!(pem("", &one.key).is_no_certificate());
    assert!(pem(&one.certificate, &one.certificate).is_no_key());
    assert!(pem(&one.certificate, "").is_no_key());
    assert!(pem(&one.certificate, &two.key).is_key_mismatch());
    let label = |key: &str, from: &str, to: &str| key.replace(from, to);
    let encrypted = label(&one.key, "PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    assert!(pem(&one.certificate, &encrypted).is_encrypted_key());
    let old =
        label(&one.key, "-----\n", "-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n");
    assert!(pem(&one.certificate, &old).is_encrypted_key());
    let cut = &one.key[..one.key.len() / 2];
    let error = pem(&one.certificate, cut);
    assert!(error.is_malformed() || error.is_no_key(), "{error}");
    let damaged = one.key.replacen(&secret, &"A".repeat(20), 1);
    assert!(pem(&one.certificate, &damaged).is_malformed());
    let certificate = one.certificate.lines().nth(1).unwrap();
    let damaged = one.certificate.replacen(certificate, &"A".repeat(64), 1);
    assert!(pem(&damaged, &one.key).is_malformed());

    let tls = one.tls().unwrap();
    assert!(tls.clone().client_roots(&one.key).unwrap_err().is_no_certificate());
    let tls = tls.client_roots(root.root()).unwrap();
    let shown = format!("{tls:?} {:?}", Server::new(Echo::default()).tls(tls.clone()));
    assert!(
        shown.starts_with("ServerTls { certificates: 1, client_roots: Some(1), .. }"),
        "{shown}"
    );
    assert!(!shown.contains(&secret));
    let server = Server::new(Echo::default()).tls(tls);
    let error = within(server.clone().handshake_timeout(Duration::ZERO).bind("127.0.0.1:0"));
    assert_eq!(error.unwrap_err().to_string(), "handshake_timeout is 0");
    #[cfg(unix)]
    assert!(within(server.bind_unix("nowhere.sock")).unwrap_err().is_setting());
}
