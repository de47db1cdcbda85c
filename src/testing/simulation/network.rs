//! Remote functions of a simulated program, and what goes wrong on the way to them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use timely_statefun_proto::Message;
use timely_statefun_proto::reqreply::{FromFunction, ToFunction};
use tokio::time::sleep;

use super::random::Random;
use crate::call_error::CallError;
use crate::dispatch::panic_message;
use crate::remote::{Answered, Answers};

/// What serves the functions at URLs that begin so.
pub(super) type Service = Arc<dyn Fn(&ToFunction) -> FromFunction + Send + Sync>;

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallFault {
    /// Nobody is reached.
    Refused,
    /// The function is not called, and the answer says so.
    Unavailable,
    /// The function is called, and its answer is lost.
    Lost,
    /// The function is called, and never answers.
    Hangs,
    /// The answer comes so much later.
    Late(Duration),
    /// The function is called twice, as by a proxy that tries again, and the second answer comes.
    Twice,
    /// The function is called, and something on the way answers in its place that it took too long.
    TimedOut,
}

/// The network of one run.
pub(super) struct Network {
    services: Vec<(String, Service)>,
    /// By number of the call.
    faults: Mutex<Vec<(u64, CallFault)>>,
    calls: AtomicU64,
    /// How many calls went wrong.
    failed: AtomicU64,
    /// What a service said when it panicked for the first time.
    panicked: Arc<Mutex<Option<String>>>,
    random: Mutex<Random>,
}

impl Network {
    pub(super) fn new(
        services: Vec<(String, Service)>,
        faults: Vec<(u64, CallFault)>,
        random: Random,
    ) -> Self {
        Network {
            services,
            faults: Mutex::new(faults),
            calls: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            panicked: Arc::default(),
            random: Mutex::new(random),
        }
    }

    /// Nothing goes wrong from now on.
    pub(super) fn heal(&self) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }

    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// What was wrong with a service, if anything was.
    pub(super) fn panicked(&self) -> Option<String> {
        self.panicked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn fault(&self, call: u64) -> Option<CallFault> {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.iter().find(|(number, _)| *number == call).map(|(_, fault)| *fault)
    }
}

impl Answers for Network {
    fn answer(&self, url: &str, body: Bytes) -> Answered {
        let call = self.calls.fetch_add(1, Relaxed);
        let service = self.services.iter().find(|(prefix, _)| url.starts_with(prefix.as_str()));
        let service = service.map(|(_, service)| Arc::clone(service));
        let fault = self.fault(call);
        self.failed.fetch_add(fault.is_some().into(), Relaxed);
        let (url, panicked) = (url.to_owned(), Arc::clone(&self.panicked));
        let takes = self.random.lock().unwrap_or_else(PoisonError::into_inner).below(30);
        Box::pin(async move {
            sleep(Duration::from_millis(takes)).await;
            match fault {
                Some(CallFault::Refused) => {
                    return Err(CallError::connect("nobody is reached".to_owned()));
                }
                Some(CallFault::Unavailable) => {
                    let answer = http::Response::builder().status(503).body(Bytes::new());
                    return Ok(answer.expect("it is well formed"));
                }
                _ => {}
            }
            let Some(service) = service else {
                let answer = http::Response::builder().status(404).body(Bytes::new());
                return Ok(answer.expect("it is well formed"));
            };
            let ask = || {
                let request = ToFunction::decode(body.clone()).expect("requests are well formed");
                service(&request).encode_to_vec()
            };
            if fault == Some(CallFault::Twice) {
                let _ = catch_unwind(AssertUnwindSafe(ask));
            }
            let bytes = match catch_unwind(AssertUnwindSafe(ask)) {
                Ok(bytes) => bytes,
                Err(panic) => {
                    let why = format!("what serves {url} panicked: {}", panic_message(&*panic));
                    let mut panicked = panicked.lock().unwrap_or_else(PoisonError::into_inner);
                    panicked.get_or_insert(why);
                    return Err(CallError::lost("the service panicked".to_owned()));
                }
            };
            match fault {
                Some(CallFault::Lost) => {
                    return Err(CallError::lost("the answer is lost".to_owned()));
                }
                Some(CallFault::TimedOut) => {
                    let answer = http::Response::builder().status(504).body(Bytes::new());
                    return Ok(answer.expect("it is well formed"));
                }
                Some(CallFault::Hangs) => std::future::pending().await,
                Some(CallFault::Late(wait)) => sleep(wait).await,
                _ => {}
            }
            let answer = http::Response::builder()
                .header(CONTENT_TYPE, "application/octet-stream")
                .body(Bytes::from(bytes));
            Ok(answer.expect("it is well formed"))
        })
    }
}
