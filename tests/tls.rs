//! Remote functions with TLS: who is trusted and who is not, and what is said of each usual mistake.

#[path = "support/protocol.rs"]
mod protocol;
#[path = "support/server.rs"]
mod server;
#[path = "support/sockets.rs"]
mod sockets;
mod support;

use std::process::Command;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pkcs8::pkcs5::pbes2;
use pkcs8::{LineEnding, PrivateKeyInfoRef};
use protocol::*;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use sockets::{Directory, Listener, Served, serve};
use timely_statefun::{CallError, Endpoint, Envelope, OnFailure, Pem, TypedValue};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{
    ALL_VERSIONS, RootCertStore, ServerConfig, SupportedProtocolVersion, version,
};

const MILLI: Duration = Duration::from_millis(1);
const PASSWORD: &str = "s3cret";

/// Somebody who signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key.
struct Identity {
    cert: String,
    key: KeyPair,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    fn sign(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity { cert, key }
    }

    fn root(&self) -> Pem {
        Pem::bytes(self.pem.as_bytes())
    }
}

impl Identity {
    fn cert(&self) -> Pem {
        Pem::bytes(self.cert.as_bytes())
    }

    fn key(&self) -> Pem {
        Pem::bytes(self.key.serialize_pem())
    }

    /// The key behind the password.
    fn encrypted(&self) -> String {
        let der = self.key.serialize_der();
        let key = PrivateKeyInfoRef::try_from(der.as_slice()).unwrap();
        let how = pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(1000, &[1; 16], [2; 16]);
        let sealed = key.encrypt_with_params(how.unwrap(), PASSWORD).unwrap();
        sealed.to_pem("ENCRYPTED PRIVATE KEY", LineEnding::LF).unwrap().to_string()
    }
}

/// What a server is asked for.
struct Accepts {
    versions: &'static [&'static SupportedProtocolVersion],
    /// Who signs clients, if they need to be signed.
    clients: Option<String>,
    protocols: &'static [&'static str],
}

const VERSIONS: [&[&SupportedProtocolVersion]; 2] = [&[&version::TLS12], &[&version::TLS13]];
const ANYBODY: Accepts = Accepts { versions: ALL_VERSIONS, clients: None, protocols: &[] };

fn acceptor(identity: &Identity, accepts: &Accepts) -> TlsAcceptor {
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let config = config.with_protocol_versions(accepts.versions).unwrap();
    let config = match &accepts.clients {
        None => config.with_no_client_auth(),
        Some(root) => {
            let mut roots = RootCertStore::empty();
            roots.add(PemObject::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            config.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let chain = vec![PemObject::from_pem_slice(identity.cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::try_from(identity.key.serialize_der()).unwrap();
    let mut config = config.with_single_cert(chain, key).unwrap();
    config.alpn_protocols =
        accepts.protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// The greeter as somebody, and the URL at which it is by a name.
fn start(identity: &Identity, accepts: &Accepts) -> (Served, String) {
    let (listener, port) = Listener::tcp();
    let tls = acceptor(identity, accepts);
    let served = serve(listener, Some(tls), |request| greeter(&batch(&request)));
    (served, format!("https://localhost:{port}/{{function.name}}"))
}

fn visits(times: u64) -> Vec<(u64, Envelope<TypedValue>)> {
    (0..times).map(|time| greet(time, "x")).collect()
}

fn all_went_well(endpoint: Endpoint) {
    let endpoint = endpoint.call_timeout(Duration::from_secs(20));
    let ran = run_on(1, move || remote(endpoint.clone()), visits(5));
    assert!(ran.letters.is_empty() && ran.stopped.is_none(), "{ran:?}");
    let expected: Vec<_> = (0..5).map(|time| (time, format!("x {}", time + 1))).collect();
    assert_eq!(ran.greetings, expected);
}

/// The first error of a call, and what stands in the dead letter for it.
fn given_up(endpoint: Endpoint) -> (CallError, String) {
    let error: Arc<Mutex<Option<CallError>>> = Arc::default();
    let seen = Arc::clone(&error);
    let endpoint = endpoint.on_failure(OnFailure::DeadLetter).retry_if(move |error: &CallError| {
        *seen.lock().unwrap() = Some(error.clone());
        false
    });
    let ran = run_on(1, move || remote(endpoint.clone()), visits(1));
    assert!(ran.greetings.is_empty() && ran.stopped.is_none(), "{ran:?}");
    let [letter] = &ran.letters[..] else { panic!("{ran:?}") };
    let error = error.lock().unwrap().take().expect("there was an error");
    let text = letter.reason.to_string();
    assert!(text.contains(&error.to_string()), "{error}: {text}");
    (error, text)
}

/// Nobody was reached, and the dead letter says why.
#[track_caller]
fn is_not_reached(endpoint: Endpoint, why: &str) {
    let (error, text) = given_up(endpoint);
    assert!(error.is_connect() && error.may_pass(), "{error:?}");
    assert!(text.contains(why), "{why}: {text}");
}

#[test]
fn who_is_signed_by_somebody_trusted_is_called() {
    let authority = Authority::new("ann");
    let server = authority.sign("localhost", |_| {});
    for versions in VERSIONS {
        let (_served, url) = start(&server, &Accepts { versions, ..ANYBODY });
        all_went_well(Endpoint::at(&url).trusted_roots(authority.root()));
    }
    // Several may be trusted, and be in a file.
    let directory = Directory::new();
    let roots = directory.write("roots.pem", &(Authority::new("bob").pem + &authority.pem));
    let (served, url) = start(&server, &ANYBODY);
    all_went_well(Endpoint::at(&url).trusted_roots(Pem::file(roots)));
    assert_eq!(served.connections.load(SeqCst), 1, "it is kept");
    // An address is a name.
    let server = authority.sign("127.0.0.1", |_| {});
    let (_served, url) = start(&server, &ANYBODY);
    let url = url.replace("localhost", "127.0.0.1");
    all_went_well(Endpoint::at(&url).trusted_roots(authority.root()));
}

#[test]
fn the_http_version_is_the_endpoints() {
    let authority = Authority::new("ann");
    let server = authority.sign("localhost", |_| {});
    let both: &[_] = &["h2", "http/1.1"];
    for (http2, protocols) in
        [(false, both), (true, both), (false, &["http/1.1"][..]), (true, &["h2"]), (true, &[])]
    {
        let (listener, port) = Listener::tcp();
        let tls = acceptor(&server, &Accepts { protocols, ..ANYBODY });
        let _served = serve(listener, Some(tls), move |request| {
            let expected = if http2 { "HTTP/2.0" } else { "HTTP/1.1" };
            let version = request.headers.iter().find(|(name, _)| name == ":version").unwrap();
            assert_eq!(version.1, expected, "{protocols:?}");
            greeter(&batch(&request))
        });
        let endpoint = Endpoint::at(format!("https://localhost:{port}/"));
        all_went_well(endpoint.http2(http2).trusted_roots(authority.root()));
    }
    for (http2, protocols) in [(false, &["h2"][..]), (true, &["http/1.1"])] {
        let (_served, url) = start(&server, &Accepts { protocols, ..ANYBODY });
        let endpoint = Endpoint::at(&url).http2(http2).trusted_roots(authority.root());
        is_not_reached(endpoint, "does not speak the HTTP version of the endpoint");
    }
}

/// Both show who they are. The key may be behind a password, and all of it in files.
#[test]
fn a_client_shows_who_it_is_where_the_server_asks() {
    let (authority, clients) = (Authority::new("ann"), Authority::new("bob"));
    let server = authority.sign("localhost", |_| {});
    let client = clients.sign("client", |_| {});
    let directory = Directory::new();
    let encrypted = directory.write("key.pem", &client.encrypted());
    let both = directory.write("both.pem", &(client.cert.clone() + &client.key.serialize_pem()));
    let shows: [&dyn Fn(Endpoint) -> Endpoint; 3] = [
        &|at| at.client_cert(client.cert()).client_key(client.key()),
        &|at| at.client_cert(Pem::file(&both)).client_key(Pem::file(&both)),
        &|at| {
            let at = at.client_cert(client.cert()).client_key(Pem::file(&encrypted));
            at.client_key_password(PASSWORD)
        },
    ];
    for versions in VERSIONS {
        for protocols in [&[][..], &["h2"]] {
            let accepts = Accepts { versions, clients: Some(clients.pem.clone()), protocols };
            let (_served, url) = start(&server, &accepts);
            let endpoint = Endpoint::at(&url).trusted_roots(authority.root());
            let endpoint = endpoint.http2(!protocols.is_empty());
            for show in shows {
                all_went_well(show(endpoint.clone()));
            }
            is_not_reached(endpoint.clone(), "the server wants a certificate of the client");
            for other in [&authority, &Authority::new("bob")] {
                let other = other.sign("client", |_| {});
                let endpoint = endpoint.clone().client_cert(other.cert()).client_key(other.key());
                if versions == [&version::TLS13] {
                    // The client is done before it is refused. It may find the connection lost before it
                    // hears why, and with HTTP/2 it hears nothing.
                    let (error, text) = given_up(endpoint);
                    assert!(error.is_connect() || error.is_lost(), "{error:?}");
                    assert!(text.contains("the certificate of the client"), "{text}");
                } else {
                    let why = "the server does not take the certificate of the client";
                    is_not_reached(endpoint, why);
                }
            }
        }
    }
    // Whoever is not asked says nothing.
    let (_served, url) = start(&server, &ANYBODY);
    all_went_well(shows[0](Endpoint::at(&url).trusted_roots(authority.root())));
}

#[test]
fn a_server_that_is_not_trusted_is_not_reached_and_the_dead_letter_says_why() {
    let authority = Authority::new("ann");
    let server = authority.sign("localhost", |_| {});
    let (_served, url) = start(&server, &ANYBODY);
    let endpoint = |url: &str| Endpoint::at(url).trusted_roots(authority.root());
    // Another that calls itself the same is another.
    for name in ["bob", "ann"] {
        let other = Authority::new(name).root();
        let why = "nobody who is trusted signed the server's certificate";
        is_not_reached(Endpoint::at(&url).trusted_roots(other), why);
    }
    let by_address = url.replace("localhost", "127.0.0.1");
    is_not_reached(endpoint(&by_address), "the server's certificate is for another name");
    let elsewhere = authority.sign("elsewhere", |_| {});
    let (_served, url) = start(&elsewhere, &ANYBODY);
    is_not_reached(endpoint(&url), "only valid for DnsName(\"elsewhere\")");
    let expired = authority.sign("localhost", |params| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    });
    let (_served, url) = start(&expired, &ANYBODY);
    is_not_reached(endpoint(&url), "the server's certificate has expired");
    let early = authority.sign("localhost", |params| {
        params.not_before = rcgen::date_time_ymd(4000, 1, 1);
        params.not_after = rcgen::date_time_ymd(4001, 1, 1);
    });
    let (_served, url) = start(&early, &ANYBODY);
    is_not_reached(endpoint(&url), "the server's certificate is not valid yet");
}

/// Certificates are replaced while programs run.
#[test]
fn a_server_that_gets_a_good_certificate_is_called_then() {
    let authority = Authority::new("ann");
    let (listener, port) = Listener::tcp();
    let url = format!("https://localhost:{port}/");
    let stranger = acceptor(&Authority::new("bob").sign("localhost", |_| {}), &ANYBODY);
    let first = serve(listener, Some(stranger), |request| greeter(&batch(&request)));
    let (missed, told) = std::sync::mpsc::channel();
    let missed = Mutex::new(missed);
    let endpoint = Endpoint::at(&url).trusted_roots(authority.root()).retry_first(MILLI);
    let endpoint = endpoint.retry_longest(20 * MILLI).retry_if(move |error: &CallError| {
        drop(missed.lock().unwrap().send(error.clone()));
        error.may_pass()
    });
    let known = acceptor(&authority.sign("localhost", |_| {}), &ANYBODY);
    let replaced = std::thread::spawn(move || {
        for _ in 0..3 {
            assert!(told.recv().unwrap().is_connect());
        }
        drop(first);
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(([127, 0, 0, 1], port).into()).unwrap();
        let _in_runtime = runtime().enter();
        let listener = Listener::Tcp(socket.listen(16).unwrap());
        serve(listener, Some(known), |request| greeter(&batch(&request)))
    });
    all_went_well(endpoint);
    drop(replaced.join().unwrap());
}

#[test]
fn tls_where_there_is_none_and_none_where_there_is_are_told_apart() {
    let authority = Authority::new("ann");
    let server = authority.sign("localhost", |_| {});
    let (listener, port) = Listener::tcp();
    let _plain = serve(listener, None, |request| greeter(&batch(&request)));
    for http2 in [false, true] {
        let endpoint = Endpoint::at(format!("https://localhost:{port}/")).http2(http2);
        let endpoint = endpoint.trusted_roots(authority.root());
        is_not_reached(endpoint, "what answers does not speak TLS");
        let (_served, url) = start(&server, &ANYBODY);
        let (error, text) = given_up(Endpoint::at(url.replace("https", "http")).http2(http2));
        assert!(error.is_lost() && error.may_pass(), "{error:?}");
        let why = "what answers does not speak HTTP (if it speaks TLS, the URL begins with https)";
        // A server that closes such a connection may do so before it is heard, which HTTP/2 minds.
        let or = "nobody there has spoken HTTP/2 without TLS so far";
        assert!(text.contains(why) || http2 && text.contains(or), "{text}");
    }
}

/// The error of a program that is not valid.
fn mistake(endpoint: Endpoint) -> String {
    let error = remote(endpoint).check().unwrap_err();
    assert!(error.is_invalid_endpoint(), "{error}");
    error.to_string()
}

#[test]
fn what_is_wrong_with_a_file_is_an_error_that_names_it_before_anything_runs() {
    let authority = Authority::new("ann");
    let (client, other) = (authority.sign("client", |_| {}), authority.sign("other", |_| {}));
    let directory = Directory::new();
    let file = |name: &str, text: &str| Pem::file(directory.write(name, text));
    let (cert, key) = (file("cert", &client.cert), file("key", &client.key.serialize_pem()));
    let der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let secret = client.key.serialize_pem();
    let encrypted = file("encrypted", &client.encrypted());
    let cut = &secret[..secret.len() / 2];
    let no_key = secret.replace("PRIVATE KEY-----\n", "PRIVATE KEY-----\nAAAA");
    let before = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n";
    let missing = Pem::file(directory.at("none"));
    let at = || Endpoint::at("https://localhost/");
    let with = |key: &Pem| at().client_cert(cert.clone()).client_key(key.clone());
    for (endpoint, option, name, why) in [
        (at().trusted_roots(missing.clone()), "trusted_roots", "none", "No such file"),
        (at().trusted_roots(file("a", "text")), "trusted_roots", "a", "has no certificate"),
        (at().trusted_roots(file("b", &client.cert[..99])), "trusted_roots", "b", "not PEM"),
        (
            at().trusted_roots(file("c", &(client.cert.clone() + der))),
            "trusted_roots",
            "c",
            "its certificate 2 is none",
        ),
        (with(&missing), "client_key", "none", "No such file"),
        (with(&file("d", "text")), "client_key", "d", "has no private key"),
        (with(&file("e", &client.cert)), "client_key", "e", "has no private key"),
        (with(&file("f", cut)), "client_key", "f", "not PEM"),
        (with(&file("g", &no_key)), "client_key", "g", "none that is understood"),
        (with(&file("h", before)), "client_key", "h", "openssl pkcs8 -topk8"),
        (with(&encrypted), "client_key", "encrypted", "no client_key_password"),
        (
            with(&encrypted).client_key_password("wrong"),
            "client_key",
            "encrypted",
            "client_key_password does not open it",
        ),
        (
            with(&file("i", &client.encrypted()[..99])).client_key_password(PASSWORD),
            "client_key",
            "i",
            "not PEM",
        ),
        (with(&key).client_key_password(PASSWORD), "client_key", "key", "no key that is encrypted"),
        (with(&file("j", &other.key.serialize_pem())), "client_key", "j", "does not belong to"),
        (
            at().client_cert(file("k", der)).client_key(key.clone()),
            "client_cert",
            "k",
            "first certificate is none",
        ),
        (
            at().client_cert(file("l", &secret)).client_key(key.clone()),
            "client_cert",
            "l",
            "has no certificate",
        ),
    ] {
        let text = mistake(endpoint);
        let named = format!("{option}, \"{}\": ", directory.at(name).display());
        assert!(text.contains(&named) && text.contains(why), "{named}{why}: {text}");
        // A part of the key, and the password.
        assert!(!text.contains(&secret[30..50]) && !text.contains(PASSWORD), "{text}");
    }
    remote(with(&key)).check().unwrap();
    remote(with(&encrypted).client_key_password(PASSWORD)).check().unwrap();
}

#[test]
fn options_that_belong_together_are_all_there_or_it_is_an_error() {
    let authority = Authority::new("ann");
    let client = authority.sign("client", |_| {});
    let at = || Endpoint::at("https://localhost/").trusted_roots(authority.root());
    for (endpoint, why) in [
        (at().client_cert(client.cert()), "a client_cert, and no client_key"),
        (at().client_key(client.key()), "a client_key, and no client_cert"),
        (at().client_key_password(PASSWORD), "a client_key_password, and no client_key"),
        (Endpoint::at("http://x/").trusted_roots(authority.root()), "only https://"),
        (Endpoint::at("http://x/").client_key_password(PASSWORD), "only https://"),
    ] {
        let text = mistake(endpoint);
        assert!(text.contains(why) && !text.contains(PASSWORD), "{why}: {text}");
    }
}

#[test]
fn no_secret_of_tls_is_shown() {
    let client = Authority::new("bob").sign("client", |_| {});
    let endpoint = Endpoint::at("https://localhost/").client_cert(Pem::file("/a/cert.pem"));
    let endpoint = endpoint.client_key(client.key()).client_key_password(PASSWORD);
    let shown = format!("{endpoint:?} {endpoint:#?} {:?}", client.key());
    assert!(shown.contains("/a/cert.pem") && shown.contains("client_key"), "{shown}");
    assert!(!shown.contains(PASSWORD) && !shown.contains("PRIVATE"), "{shown}");
    let bytes = format!("{:?}", client.key.serialize_pem().as_bytes());
    assert!(!shown.contains(&bytes[1..20]), "{shown}");
}

/// Files are read when functions are bound, so what becomes of them later is nobody's concern.
#[test]
fn a_file_that_goes_away_later_is_not_missed() {
    let authority = Authority::new("ann");
    let (_served, url) = start(&authority.sign("localhost", |_| {}), &ANYBODY);
    let directory = Directory::new();
    let roots = directory.write("roots.pem", &authority.pem);
    let endpoint = Endpoint::at(&url).trusted_roots(Pem::file(&roots));
    let functions = move || {
        std::fs::write(&roots, &authority.pem).unwrap();
        let functions = remote(endpoint.clone());
        std::fs::remove_file(&roots).unwrap();
        functions
    };
    let ran = run_on(1, functions, visits(2));
    assert_eq!(ran.greetings.len(), 2, "{ran:?}");
}

/// Whom the system trusts is said by its environment, so this is run once more, in a process that has another.
#[test]
fn without_roots_those_of_the_system_are_trusted() {
    const URL: &str = "STATEFUN_TLS_TEST_URL";
    if let Ok(url) = std::env::var(URL) {
        return all_went_well(Endpoint::at(url));
    }
    let authority = Authority::new("ann");
    let (_served, url) = start(&authority.sign("localhost", |_| {}), &ANYBODY);
    let directory = Directory::new();
    let roots = directory.write("roots.pem", &authority.pem);
    let nobody = directory.write("nobody.pem", "");
    let run = |roots| {
        let mut program = Command::new(std::env::current_exe().unwrap());
        program.args(["--exact", "without_roots_those_of_the_system_are_trusted"]);
        program.env(URL, &url).env("SSL_CERT_FILE", roots).env_remove("SSL_CERT_DIR");
        program.output().unwrap()
    };
    let output = run(&roots);
    assert!(output.status.success(), "{output:?}");
    let output = run(&nobody);
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && said.contains("the system trusts nobody"), "{said}");
}

#[test]
#[cfg(unix)]
fn tls_goes_through_a_unix_socket_to_whom_it_takes_for_localhost() {
    let authority = Authority::new("ann");
    let directory = Directory::new();
    let socket = directory.at("f.sock");
    let tls = acceptor(&authority.sign("localhost", |_| {}), &ANYBODY);
    let _served = serve(Listener::unix(&socket), Some(tls), |request| greeter(&batch(&request)));
    let url = format!("https+unix://{}/{{function.name}}", socket.display());
    all_went_well(Endpoint::at(&url).trusted_roots(authority.root()));
    let other = Authority::new("bob").root();
    is_not_reached(Endpoint::at(&url).trusted_roots(other), "nobody who is trusted");
}
