//! A program made of a module's file calls the functions that it names, and the files that it names are used.

use std::fs;

use pkcs8::pkcs5::pbes2;
use pkcs8::{LineEnding, PrivateKeyInfoRef};
use timely::dataflow::operators::{Capture, ToStream, capture::Extract};
use timely_statefun::modules::{Connectors, Mistake, Module, ModuleError, Placeholders};
use timely_statefun::serve::{ServedFunctions, Server};
use timely_statefun::{
    Egress, Function, FunctionType, Functions, Namespace, StatefulFunctions, TypedValue, ValueSpec,
};

const PEOPLE: Namespace<String> = Namespace::new("example");
const PERSON: FunctionType<String> = FunctionType::new("example/person");
const SEEN: ValueSpec<i32> = ValueSpec::new("seen");
const GREETS: Egress<String> = Egress::new("io.statefun.playground/egress");

fn read(path: &str, placeholders: &Placeholders) -> Result<Module<()>, ModuleError> {
    Module::read(path, placeholders, &Connectors::new())
}

/// Functions as they are served elsewhere.
fn served() -> Functions<TypedValue> {
    let person = Function::new(|context, name: &String| {
        let seen = context.update(SEEN, |seen| *seen += 1);
        context.emit(GREETS, format!("{name} {seen}"));
        Ok(())
    });
    Functions::new().embedded(PERSON, person.value(SEEN)).typed_egress(GREETS)
}

#[test]
fn functions_are_called_where_a_file_says_they_are() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let functions = ServedFunctions::new(served).unwrap();
    let serving = runtime.block_on(Server::new(functions).bind("127.0.0.1:0")).unwrap();
    let port = serving.local_addr().unwrap().port();

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("module.yaml").to_str().unwrap().to_owned();
    let text = "
kind: io.statefun.endpoints.v2/http
spec:
  functions: example/*
  urlPathTemplate: http://127.0.0.1:${FUNCTIONS_PORT}/{function.name}
";
    fs::write(&path, text).unwrap();
    let placeholders = Placeholders::none().with("FUNCTIONS_PORT", port.to_string());
    let module = read(&path, &placeholders).unwrap();
    let handle = runtime.handle().clone();
    let greets = timely::example(move |scope| {
        let functions = Functions::<TypedValue>::new().typed_egress(GREETS).runtime(handle);
        let functions = module.bind(functions).unwrap();
        let names = ["Ada", "Bob", "Ada"];
        let messages = names.map(|name| PEOPLE.message("person", name, name.to_owned()).unwrap());
        let egresses = messages.to_stream(scope).stateful_functions(functions).unwrap();
        egresses.stream(GREETS).unwrap().capture()
    });
    let mut greets: Vec<_> = greets.extract().into_iter().flat_map(|(_, greets)| greets).collect();
    greets.sort();
    assert_eq!(greets, ["Ada 1", "Ada 2", "Bob 1"]);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("module.yaml").to_str().unwrap().to_owned();
    let error = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        read(&path, &Placeholders::none()).unwrap_err()
    };
    let unreadable = error(b"kind: \xff");
    assert!(matches!(unreadable.kind(), Mistake::Unreadable { .. }), "{unreadable}");
    assert_eq!((unreadable.file(), unreadable.line(), unreadable.column()), (&*path, 0, 0));
    // It is cut off within a letter.
    let long = error("é".repeat(1 << 20).as_bytes());
    assert_eq!(long.to_string(), format!("{path}: the file has more than 1048576 bytes"));
    let missing = read("/no/such/module.yaml", &Placeholders::none()).unwrap_err();
    assert!(missing.to_string().starts_with("/no/such/module.yaml: the file cannot be read: "));
    let wrong = error(b"\n kind: a/b\n spec: {}\n");
    assert!(wrong.to_string().starts_with(&format!("{path}:2:8: ")), "{wrong}");
}

/// The environment is what it is: nothing is set here, where other tests run.
#[test]
fn the_environment_fills_placeholders() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("module.yaml").to_str().unwrap().to_owned();
    let text = "
kind: io.statefun.endpoints.v2/http
spec:
  functions: example/*
  urlPathTemplate: http://localhost/${CARGO_PKG_NAME:none}
";
    fs::write(&path, text).unwrap();
    let url = |placeholders| {
        let module = read(&path, &placeholders).unwrap();
        format!("{:?}", module.endpoints().get("example/*").unwrap())
    };
    // Cargo sets it for tests.
    assert!(url(Placeholders::environment()).contains("\"http://localhost/timely-statefun\""));
    assert!(url(Placeholders::none()).contains("\"http://localhost/none\""));
    let with = Placeholders::environment().with("CARGO_PKG_NAME", "other");
    assert!(url(with).contains("\"http://localhost/other\""));
}

#[test]
fn certificates_keys_and_passwords_are_those_of_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned()];
    let cert = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let der = key.serialize_der();
    let how = pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(1000, &[7; 16], [9; 16]);
    let sealed = PrivateKeyInfoRef::try_from(&*der).unwrap();
    let sealed = sealed.encrypt_with_params(how.unwrap(), "secret").unwrap();
    fs::write(path("cert.pem"), cert.pem()).unwrap();
    fs::write(path("key.pem"), key.serialize_pem()).unwrap();
    let sealed = sealed.to_pem("ENCRYPTED PRIVATE KEY", LineEnding::LF).unwrap();
    fs::write(path("sealed.pem"), sealed.as_bytes()).unwrap();

    let parse = |transport: &[(&str, &str)]| {
        let mut text =
            "kind: io.statefun.endpoints.v2/http\nspec:\n  functions: a/b\n  urlPathTemplate: \
                        https://c\n  transport:\n"
                .to_owned();
        transport.iter().for_each(|(field, value)| text += &format!("    {field}: {value}\n"));
        Module::parse("m", &text, &Placeholders::none(), &Connectors::<()>::new())
    };
    let bind = |transport: &[(&str, &str)]| {
        let bound = parse(transport)?.bind(Functions::<TypedValue>::new());
        bound.map(drop)
    };
    let (roots, cert) = (path("cert.pem"), format!("file:{}", path("cert.pem")));
    let (key, sealed) = (format!("file://{}", path("key.pem")), path("sealed.pem"));
    let all = [("trust_cacerts", &*roots), ("client_cert", &cert), ("client_key", &key)];
    bind(&all).unwrap();
    let shown = format!("{:?}", parse(&all).unwrap().endpoints());
    for (field, file) in
        [("trusted_roots", "cert.pem"), ("client_cert", "cert.pem"), ("client_key", "key.pem")]
    {
        assert!(shown.contains(&format!("{field}: Some(Pem({:?}))", path(file))), "{shown}");
    }

    let error = |transport: &[(&str, &str)]| bind(transport).unwrap_err().to_string();
    let told = error(&[("trust_cacerts", "/no/such/file")]);
    assert!(told.starts_with("m:3:14: ") && told.contains("/no/such/file"), "{told}");
    let told = error(&[("client_cert", "classpath:cert.pem")]);
    let expected =
        "m:6:18: there is no class path here, only files, and \"classpath:cert.pem\" is none";
    assert_eq!(told, expected);

    let password = path("password");
    let sealed = |password| {
        [("client_cert", &*cert), ("client_key", &*sealed), ("client_key_password", password)]
    };
    let told = error(&sealed("/no/such/password"));
    assert!(told.starts_with("m:8:26: the file cannot be read: /no/such/password: "), "{told}");
    for (content, opens) in [
        ("secret", true),
        ("secret\n", true),
        ("secret\r\n", true),
        ("secret \n", false),
        ("secret\n\n", false),
    ] {
        fs::write(&password, content).unwrap();
        let bound = bind(&sealed(&password));
        assert_eq!(bound.is_ok(), opens, "{content:?}: {bound:?}");
        if let Err(error) = bound {
            assert!(error.to_string().contains("client_key_password does not open it"), "{error}");
        }
    }
    // What a certificate is for is a connection with TLS.
    let text = "{kind: io.statefun.endpoints.v2/http, spec: {functions: a/b, urlPathTemplate: 'http://c', \
                transport: {trust_cacerts: FILE}}}";
    let text = text.replace("FILE", &roots);
    let module = Module::parse("m", &text, &Placeholders::none(), &Connectors::<()>::new());
    let error = module.unwrap().bind(Functions::<TypedValue>::new()).unwrap_err();
    let Mistake::Endpoint(inner) = error.kind() else { panic!("{error}") };
    assert!(inner.is_invalid_endpoint(), "{error}");
}
