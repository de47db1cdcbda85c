//! What a program says of TLS: whom it trusts, and as whom it calls.
//!
//! What is in certificates and keys is not looked at here, and files are not read; both is done
//! where functions are called.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Certificates or a private key in the PEM format, for the TLS of an [`Endpoint`](crate::Endpoint). With the feature
/// `tls`.
///
/// A file is read when functions are bound to the endpoint, and never again. Whatever else it has is passed over, so
/// a certificate and its key may be in one.
///
/// ```
/// use timely_statefun::{Endpoint, FunctionType, Functions, Pem, TypedValue};
///
/// const GREETER: FunctionType<String> = FunctionType::new("example/greeter");
///
/// let greeter = Endpoint::at("https://functions.example/{function.name}")
///     .trusted_roots(Pem::file("/no/such/file.pem"));
/// let functions: Functions<TypedValue> = Functions::new().remote(GREETER, greeter);
/// let error = functions.check().unwrap_err();
/// assert!(error.is_invalid_endpoint() && error.to_string().contains("/no/such/file.pem"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    pub(crate) file: Option<PathBuf>,
    /// None if it is in a file that was not read yet.
    pub(crate) bytes: Option<Arc<[u8]>>,
}

impl Pem {
    /// What is in a file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Pem { file: Some(path.into()), bytes: None }
    }

    /// These bytes, which are text.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Pem { file: None, bytes: Some(Arc::from(bytes.into())) }
    }
}

/// Shows the file's name, and nothing of what is in it.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => f.debug_tuple("Pem").field(file).finish(),
            None => f.write_str("Pem(…)"),
        }
    }
}

/// What an endpoint says of TLS.
#[derive(Clone, PartialEq, Default)]
pub(crate) struct Tls {
    pub(crate) trusted_roots: Option<Pem>,
    pub(crate) client_cert: Option<Pem>,
    pub(crate) client_key: Option<Pem>,
    pub(crate) client_key_password: Option<String>,
}

impl Tls {
    /// Whether nothing is said.
    pub(crate) fn is_default(&self) -> bool {
        *self == Tls::default()
    }

    /// All that may be in files, by the names of the options.
    pub(crate) fn pems_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut Pem)> {
        let pems = [
            ("trusted_roots", &mut self.trusted_roots),
            ("client_cert", &mut self.client_cert),
            ("client_key", &mut self.client_key),
        ];
        pems.into_iter().filter_map(|(name, pem)| Some((name, pem.as_mut()?)))
    }
}
