//! Modules as StateFun's playground and its documentation have them, and what is wrong with others.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::address::TypeName;
use crate::endpoint::Endpoint;
use crate::fuzz::{fuzz, within};
use crate::{Function, FunctionType, TypedValue};

/// An ingress or egress, as these tests know it.
#[derive(Clone, Debug, PartialEq)]
enum Known {
    Ingress { port: u64 },
    Egress { port: u64, topics: Vec<String> },
    FromKafka(KafkaIngress),
    ToKafka(KafkaEgress),
    FromKinesis(KinesisIngress),
    ToKinesis(KinesisEgress),
}

struct PlaygroundIngress(Known);
struct PlaygroundEgress(Known);

impl ConnectorSpec for PlaygroundIngress {
    const KIND: &'static str = "io.statefun.playground.v1/ingress";
    const FIELDS: &'static [&'static str] = &["port"];

    fn read(fields: &Fields<'_>) -> Result<Self, ModuleError> {
        let port = fields.require("port")?.number(0..=65_535)?;
        Ok(PlaygroundIngress(Known::Ingress { port }))
    }
}

impl ConnectorSpec for PlaygroundEgress {
    const KIND: &'static str = "io.statefun.playground.v1/egress";
    const FIELDS: &'static [&'static str] = &["port", "topics"];

    fn read(fields: &Fields<'_>) -> Result<Self, ModuleError> {
        let port = fields.require("port")?.number(0..=65_535)?;
        let topics = fields.get("topics").map_or(Ok(&[][..]), Node::list)?.iter();
        let topics = topics.map(|topic| topic.some_text().map(str::to_owned));
        Ok(PlaygroundEgress(Known::Egress { port, topics: topics.collect::<Result<_, _>>()? }))
    }
}

/// Those of the playground.
fn playground() -> Connectors<Known> {
    let connectors = Connectors::new().with(|PlaygroundIngress(known)| known);
    connectors.with(|PlaygroundEgress(known)| known)
}

/// Those of the playground, and those of StateFun.
fn everything() -> Connectors<Known> {
    let connectors = playground().with(Known::FromKafka).with(Known::ToKafka);
    connectors.with(Known::FromKinesis).with(Known::ToKinesis)
}

fn parse(text: &str) -> Result<Module<Known>, ModuleError> {
    let placeholders = Placeholders::none().with("PORT", "8090").with("SECRET", "top secret");
    Module::parse("m", text, &placeholders, &everything())
}

/// What is connected in a module, which binds as a whole.
fn connected(text: &str) -> Vec<Known> {
    let module = parse(text).unwrap();
    module.bind(Functions::<TypedValue>::new()).unwrap();
    module.into_parts().1.into_iter().map(|connection| connection.value).collect()
}

#[track_caller]
fn one<T>(all: Vec<T>) -> T {
    let [one] = all.try_into().ok().expect("there is one");
    one
}

fn endpoint(text: &str) -> Endpoint {
    let module = parse(text).unwrap();
    let functions = one(module.endpoints().functions().collect());
    module.endpoints().get(&functions).unwrap().clone()
}

/// An endpoint of version 2 with these fields besides, at column 3, from line 5 on.
fn v2(more: &str) -> String {
    format!(
        "kind: io.statefun.endpoints.v2/http\nspec:\n  functions: a/b\n  urlPathTemplate: http://c\n{more}\n"
    )
}

fn name(name: &str) -> TypeName {
    TypeName::new(name).unwrap()
}

const GREETER: &str = "\
kind: io.statefun.endpoints.v2/http
spec:
  functions: example/*
  urlPathTemplate: http://functions:8000/statefun
---
kind: io.statefun.playground.v1/ingress
spec:
  port: 8090
---
kind: io.statefun.playground.v1/egress
spec:
  port: 8091
  topics:
    - greets
";

const SHOPPING_CART: &str = "\
# A comment comes first.

kind: io.statefun.endpoints.v2/http
spec:
  functions: com.example/*
  urlPathTemplate: http://shopping-cart-functions:1108/
  transport:
    type: io.statefun.transports.v1/async
---
kind: io.statefun.playground.v1/ingress
spec:
  port: 8090
---
kind: io.statefun.playground.v1/egress
spec:
  port: 8091
  topics:
    - receipts
";

const SHOWCASE: &str = "\
version: \"3.0\"

module:
  meta:
    type: remote
  spec:
    endpoints:
      - endpoint:
          meta:
            kind: http
          spec:
            functions: java.showcase.fns/*
            urlPathTemplate: http://host.testcontainers.internal:1108/
            timeouts:
              call: 1day # time enough to look around in a debugger
                         # while a call is under way
    ingresses:
      - ingress:
          meta:
            type: io.statefun.kafka/ingress
            id: java.showcase.io/user-logins
          spec:
            address: kafka:9092
            consumerGroupId: java.showcase.greeter
            startupPosition:
              type: earliest
            topics:
              - topic: user-logins
                valueType: java.showcase.types/UserLogin
                targets:
                  - java.showcase.fns/user
    egresses:
      - egress:
          meta:
            type: io.statefun.kafka/egress
            id: java.showcase.io/user-greetings
          spec:
            address: kafka:9092
            deliverySemantic:
              type: exactly-once
              transactionTimeoutMillis: 100000
";

const KAFKA: &str = "\
kind: io.statefun.kafka.v1/ingress
spec:
  id: com.example/users
  address: kafka-broker:9092
  consumerGroupId: my-consumer-group
  autoOffsetResetPosition: earliest
  startupPosition:
    type: specific-offsets
    offsets:
      - user-topic/0: 91
      - a/b/11: 0
  topics:
    - topic: user-topic
      valueType: com.example/User
      targets:
        - com.example.fns/greeter
        - com.example.fns/audit
    - topic: \"007\"
      valueType: io.statefun.types/string
      targets: [com.example.fns/agent]
  properties:
    - security.protocol: SASL_SSL
    - sasl.jaas.config: secret=${SECRET}
    - fetch.min.bytes: 100
    - group.id: another
---
kind: io.statefun.kafka.v1/egress
spec:
  id: com.example/out
  address: kafka-broker:9092
  deliverySemantic:
    type: exactly-once
    transactionTimeout: 15min
  properties:
    - acks: all
";

const KINESIS: &str = "\
kind: io.statefun.kinesis.v1/ingress
spec:
  id: com.example/users
  awsRegion: {type: specific, id: us-west-2}
  awsCredentials:
    type: basic
    accessKeyId: me
    secretAccessKey: ${SECRET}
  startupPosition:
    type: date
    date: 2020-02-01 04:15:00.000 +0000
  streams:
    - stream: user-stream
      valueType: com.example/User
      targets: [com.example.fns/greeter]
  clientConfigProperties:
    - SocketTimeout: 9999
---
kind: io.statefun.kinesis.v1/egress
spec:
  id: com.example/users
  awsRegion: {type: custom-endpoint, endpoint: 'https://localhost:4567', id: us-west-1}
  awsCredentials: {type: profile, profileName: other, profilePath: /path}
  maxOutstandingRecords: 9999
  clientConfigProperties: [ThreadingModel: POOLED, MaxConnections: 1]
";

#[test]
fn modules_of_the_playground_say_what_they_say() {
    let egress = |topic: &str| Known::Egress { port: 8091, topics: vec![topic.to_owned()] };
    let ingress = Known::Ingress { port: 8090 };
    assert_eq!(connected(GREETER), [ingress.clone(), egress("greets")]);
    assert_eq!(connected(SHOPPING_CART), [ingress.clone(), egress("receipts")]);
    let components = SHOPPING_CART.replace("com.example/", "connected-components.fns/");
    let components = components.replace("receipts", "connected-component-changes");
    assert_eq!(connected(&components), [ingress.clone(), egress("connected-component-changes")]);
    let functions = |text| parse(text).unwrap().endpoints().functions().collect::<Vec<_>>();
    assert_eq!(functions(GREETER), ["example/*"]);
    assert_eq!(functions(&components), ["connected-components.fns/*"]);

    // The showcase has a function by itself, which the rest of its namespace does not have.
    let showcase = GREETER.to_owned()
        + "---\nkind: io.statefun.endpoints.v2/http\nspec:\n  functions: example/user\n"
        + "  urlPathTemplate: http://functions:8000/{function.name}\n";
    assert_eq!(functions(&showcase), ["example/*", "example/user"]);
    assert_eq!(connected(&showcase), [ingress, egress("greets")]);
}

#[test]
fn a_module_of_version_3_0_is_what_it_would_be_today() {
    let connected = connected(SHOWCASE);
    let [Known::FromKafka(ingress), Known::ToKafka(egress)] = &connected[..] else {
        panic!("{connected:?}")
    };
    assert_eq!(ingress.id, name("java.showcase.io/user-logins"));
    assert_eq!(ingress.startup_position, KafkaStartupPosition::Earliest);
    assert_eq!(egress.id, name("java.showcase.io/user-greetings"));
    let transaction_timeout = Duration::from_secs(100);
    assert_eq!(egress.delivery, KafkaDelivery::ExactlyOnce { transaction_timeout });
    let module = parse(SHOWCASE).unwrap();
    assert_eq!(module.connections()[0].kind, name("io.statefun.kafka.v1/ingress"));
    let endpoint = module.endpoints().get("java.showcase.fns/*").unwrap();
    assert_eq!(endpoint.options.call_timeout, Duration::from_secs(24 * 60 * 60));
    // Version 1 of endpoints is OkHttp.
    assert_eq!(endpoint.options.read_timeout_or_default(), Duration::from_secs(10));
    // Nothing has to be there.
    let empty = "{version: 3.0, module: {meta: {type: remote}, spec: {}}}";
    assert!(parse(empty).unwrap().connections().is_empty());
}

#[test]
fn kafka_and_kinesis_are_read_in_full() {
    let all = connected(KAFKA);
    let [Known::FromKafka(ingress), Known::ToKafka(egress)] = &all[..] else { panic!("{all:?}") };
    assert_eq!(ingress.id, name("com.example/users"));
    assert_eq!(
        (&*ingress.address, &*ingress.consumer_group_id),
        ("kafka-broker:9092", "my-consumer-group")
    );
    assert_eq!(ingress.auto_offset_reset, AutoOffsetReset::Earliest);
    let offsets = [(("user-topic".to_owned(), 0), 91), (("a/b".to_owned(), 11), 0)];
    let offsets = KafkaStartupPosition::SpecificOffsets(offsets.into_iter().collect());
    assert_eq!(ingress.startup_position, offsets);
    let routes: Vec<_> =
        ingress.topics.iter().map(|topic| (&*topic.from, topic.targets.len())).collect();
    assert_eq!(routes, [("user-topic", 2), ("007", 1)]);
    assert_eq!(ingress.topics[0].value_type, name("com.example/User"));
    assert_eq!(ingress.topics[1].targets, [name("com.example.fns/agent")]);
    let told: BTreeMap<_, _> = ingress.properties.iter().collect();
    assert_eq!(told["sasl.jaas.config"], "secret=top secret");
    assert_eq!((told["fetch.min.bytes"], told["group.id"]), ("100", "another"));
    let told = ingress.consumer_properties();
    assert_eq!(told.get("group.id"), Some("my-consumer-group"));
    assert_eq!(told.get("bootstrap.servers"), Some("kafka-broker:9092"));
    assert_eq!(told.get("auto.offset.reset"), Some("earliest"));
    assert_eq!(told.get("security.protocol"), Some("SASL_SSL"));
    assert_eq!(told.get("security.protocols"), None);
    let transaction_timeout = Duration::from_secs(15 * 60);
    assert_eq!(egress.delivery, KafkaDelivery::ExactlyOnce { transaction_timeout });
    assert_eq!(egress.producer_properties().get("transaction.timeout.ms"), Some("900000"));
    assert_eq!(egress.producer_properties().get("acks"), Some("all"));

    // An ingress and an egress may have one id.
    let all = connected(KINESIS);
    let [Known::FromKinesis(ingress), Known::ToKinesis(egress)] = &all[..] else {
        panic!("{all:?}")
    };
    assert_eq!((&ingress.id, &egress.id), (&name("com.example/users"), &name("com.example/users")));
    assert_eq!(ingress.region, AwsRegion::Specific { id: "us-west-2".to_owned() });
    let credentials = AwsCredentials::Basic {
        access_key_id: "me".to_owned(),
        secret_access_key: "top secret".to_owned(),
    };
    assert_eq!(ingress.credentials, credentials);
    assert_eq!(ingress.startup_position, KinesisStartupPosition::Date { ms: 1_580_530_500_000 });
    assert_eq!(ingress.streams[0].from, "user-stream");
    assert_eq!(ingress.properties.get("SocketTimeout"), Some("9999"));
    let (endpoint, id) = ("https://localhost:4567".to_owned(), "us-west-1".to_owned());
    assert_eq!(egress.region, AwsRegion::CustomEndpoint { endpoint, id });
    let (profile, path) = ("other".to_owned(), Some("/path".to_owned()));
    assert_eq!(egress.credentials, AwsCredentials::Profile { name: profile, path });
    assert_eq!(egress.records_max, 9999);
    assert_eq!(egress.properties.iter().count(), 2);

    // Whoever shows what was read shows no secret.
    for text in [KAFKA, KINESIS] {
        let shown = format!("{:?}", parse(text).unwrap());
        assert!(shown.contains("com.example/User") && !shown.contains("top secret"), "{shown}");
    }
}

#[test]
fn what_is_not_said_of_kafka_and_kinesis_has_statefuns_defaults() {
    let topics = "topics: [{topic: t, valueType: a/b, targets: [c/d]}]";
    let ingress = |more: &str| {
        let kind = "io.statefun.kafka.v1/ingress";
        let all = connected(&format!("{{kind: {kind}, spec: {{id: a/b, {topics}, {more}}}}}"));
        let Known::FromKafka(ingress) = one(all) else { panic!() };
        ingress
    };
    let least = ingress("address: a, consumerGroupId: g");
    assert_eq!(least.auto_offset_reset, AutoOffsetReset::Latest);
    assert_eq!(least.startup_position, KafkaStartupPosition::Latest);
    assert_eq!(least.properties.iter().count(), 0);
    // Properties say what fields do not.
    let said = ingress("properties: [{bootstrap.servers: a}, {group.id: g}]");
    assert_eq!((said.address, said.consumer_group_id), (least.address, least.consumer_group_id));
    for (of_type, position) in [
        ("latest", KafkaStartupPosition::Latest),
        ("earliest", KafkaStartupPosition::Earliest),
        ("group-offsets", KafkaStartupPosition::GroupOffsets),
        ("date, date: 1970-01-01 00:00:00.001 +0000", KafkaStartupPosition::Date { ms: 1 }),
    ] {
        let more = format!("address: a, consumerGroupId: g, startupPosition: {{type: {of_type}}}");
        assert_eq!(ingress(&more).startup_position, position);
    }
    let spec = |kind: &str, spec: &str| {
        one(connected(&format!("{{kind: io.statefun.{kind}, spec: {{{spec}}}}}")))
    };
    let Known::ToKafka(egress) = spec("kafka.v1/egress", "id: a/b, address: a") else { panic!() };
    assert_eq!(egress.delivery, KafkaDelivery::AtLeastOnce);
    let Known::ToKafka(egress) =
        spec("kafka.v1/egress", "id: a/b, address: a, deliverySemantic: {type: none}")
    else {
        panic!()
    };
    assert_eq!(egress.delivery, KafkaDelivery::None);
    let streams = "streams: [{stream: t, valueType: a/b, targets: [c/d]}]";
    let Known::FromKinesis(ingress) = spec("kinesis.v1/ingress", &format!("id: a/b, {streams}"))
    else {
        panic!()
    };
    assert_eq!(
        (ingress.region, ingress.credentials),
        (AwsRegion::Default, AwsCredentials::Default)
    );
    assert_eq!(ingress.startup_position, KinesisStartupPosition::Latest);
    let Known::ToKinesis(egress) = spec("kinesis.v1/egress", "id: a/b") else { panic!() };
    assert_eq!(egress.records_max, 1000);
}

#[test]
fn without_a_connector_the_kind_that_is_missing_is_named() {
    let told = |text: &str| {
        let parsed =
            Module::parse("m", text, &Placeholders::none().with("SECRET", ""), &playground());
        parsed.unwrap_err()
    };
    for (text, expected) in [
        (
            KAFKA,
            "m:1:7: there is no connector for \"io.statefun.kafka.v1/ingress\", which \
             \"com.example/users\" is: the program registers one",
        ),
        (
            SHOWCASE,
            "m:20:19: there is no connector for \"io.statefun.kafka.v1/ingress\", which \
             \"java.showcase.io/user-logins\" is: the program registers one",
        ),
    ] {
        let error = told(text);
        assert_eq!(error.to_string(), expected);
        assert!(matches!(error.kind(), Mistake::NoConnector { .. }));
    }
    let egress = KAFKA.split("---\n").last().unwrap();
    let Mistake::NoConnector { kind, id } = told(egress).kind().clone() else { panic!() };
    assert_eq!((&*kind, &*id), ("io.statefun.kafka.v1/egress", "com.example/out"));
    for (text, kind) in KINESIS.split("---\n").zip([KinesisIngress::KIND, KinesisEgress::KIND]) {
        let text = text.replace("${SECRET}", "x");
        assert!(
            matches!(told(&text).kind(), Mistake::NoConnector { kind: told, .. } if told == kind)
        );
    }
    // What a program finds out later has a place as well.
    let module = parse(GREETER).unwrap();
    let told_later = |at: usize| module.connections()[at].error("the port is taken").to_string();
    assert_eq!(told_later(0), "m:6:7: the port is taken");
    let told_later = parse(KAFKA).unwrap().connections()[1].error("no such host").to_string();
    assert_eq!(told_later, "m:29:7: no such host");
    // What is wrong with it is told first.
    let error = told(&egress.replace("exactly-once", "exactly-one"));
    assert!(error.to_string().contains("did you mean \"exactly-once\"?"), "{error}");
}

#[test]
fn transports_have_statefuns_defaults() {
    let options = |text: &str| *endpoint(text).options;
    let seconds =
        |seconds: &[u64]| seconds.iter().map(|s| Duration::from_secs(*s)).collect::<Vec<_>>();
    let timeouts = |more: &str| {
        let options = options(&v2(more));
        vec![
            options.call_timeout,
            options.connect_timeout_or_default(),
            options.read_timeout_or_default(),
            options.write_timeout_or_default(),
        ]
    };
    // With that transport, an answer may take as long as the call.
    assert_eq!(timeouts(""), seconds(&[120, 20, 120, 120]));
    assert_eq!(timeouts("  transport: {}"), seconds(&[120, 20, 120, 120]));
    let asynchronous = |more: &str| {
        let of_type = ["type: io.statefun.transports.v1/async, ", ""];
        let both = of_type.map(|of_type| timeouts(&format!("  transport: {{{of_type}{more}}}")));
        assert_eq!(both[0], both[1]);
        both[0].clone()
    };
    assert_eq!(asynchronous("call: 5 s"), seconds(&[5, 5, 5, 5]));
    assert_eq!(asynchronous("call: 30 s, connect: 1 s"), seconds(&[30, 1, 30, 30]));
    // The object wins over what is beside it, and has defaults of its own.
    assert_eq!(asynchronous("timeouts: {}"), seconds(&[60, 10, 60, 60]));
    assert_eq!(
        asynchronous("call: 5min, connect: 30s, timeouts: {connect: 3s}"),
        seconds(&[60, 3, 60, 60])
    );
    assert_eq!(
        asynchronous("timeouts: {call: 3min, read: 7s, write: 8s}"),
        seconds(&[180, 10, 7, 8])
    );
    let okhttp = |more: &str| {
        timeouts(&format!("  transport: {{type: io.statefun.transports.v1/okhttp, {more}}}"))
    };
    assert_eq!(okhttp(""), seconds(&[60, 10, 10, 10]));
    // In StateFun this is an error, as its own defaults are above the timeout of the call.
    assert_eq!(okhttp("timeouts: {call: 5s}"), seconds(&[5, 5, 5, 5]));
    assert_eq!(
        okhttp("timeouts: {call: 40s, connect: 1s, read: 2s, write: 40s}"),
        seconds(&[40, 1, 2, 40])
    );

    let pool = |options: crate::endpoint::Options| {
        (options.connections_idle_max, options.connection_idle, options.response_bytes_max)
    };
    let defaults = options(&v2(""));
    assert_eq!((defaults.batch_messages_max, defaults.batch_bytes_max), (1000, 8 << 20));
    assert_eq!(pool(defaults), (1024, Duration::from_secs(15), 32 << 20));
    let said = options(&v2(
        "  maxNumBatchRequests: 7\n  transport:\n    pool_size: 8\n    pool_ttl: 9s\n    payload_max_bytes: 10",
    ));
    assert_eq!((said.batch_messages_max, said.batch_bytes_max), (7, 10));
    assert_eq!(pool(said), (8, Duration::from_secs(9), 10));
    // A connection is then kept as long as the other side keeps it.
    let kept = options(&v2("  transport: {pool_ttl: 0}")).connection_idle;
    assert!(kept > Duration::from_secs(1 << 30), "{kept:?}");
    let okhttp = options(&v2("  transport: {type: io.statefun.transports.v1/okhttp}"));
    assert_eq!(pool(okhttp), (1024, Duration::from_secs(60), 32 << 20));

    let v1 = v2("  maxNumBatchRequests: 7\n  timeouts: {call: 20s}").replace("v2", "v1");
    let v1 = options(&v1);
    assert_eq!((v1.batch_messages_max, v1.call_timeout), (7, Duration::from_secs(20)));
    assert_eq!(v1.read_timeout_or_default(), Duration::from_secs(10));
    assert_eq!(v1.url, "http://c");
}

/// Each is an error of its own, at the place of what is wrong.
#[test]
fn what_is_wrong_is_told_with_its_place() {
    let fields = "functions, urlPathTemplate, maxNumBatchRequests, transport";
    let v2_fields = |field: &str, more: &str| {
        format!("the field \"{field}\" is not known{more} (fields here: {fields})")
    };
    let kafka = |from: &str, to: &str| {
        assert!(KAFKA.contains(from), "{from}");
        KAFKA.replacen(from, to, 1)
    };
    let kinesis = |from: &str, to: &str| {
        assert!(KINESIS.contains(from), "{from}");
        KINESIS.replacen(from, to, 1)
    };
    let legacy = |from: &str, to: &str| {
        assert!(SHOWCASE.contains(from), "{from}");
        SHOWCASE.replacen(from, to, 1)
    };
    let table: Vec<(String, &str, String)> = vec![
        // YAML.
        ("a: [".into(), "2:1", "it is not YAML: ".into()),
        ("a: b\n c: d\n".into(), "2:3", "it is not YAML: ".into()),
        ("a: *b".into(), "1:4", "it is not YAML: ".into()),
        ("a: &b [*b]".into(), "1:8", "the alias stands for nothing that is complete".into()),
        ("a: &b 1\n---\nc: *b".into(), "3:4", "the alias stands for nothing that is complete".into()),
        ("a: !b c".into(), "1:4", "the tag \"!b\" means nothing here".into()),
        ("[a]: b".into(), "1:1", "a key is text, and this is a list".into()),
        ("? \n: b".into(), "2:1", "a key is text, and this is nothing".into()),
        (v2("  functions: d/e"), "5:3", "\"functions\" is here twice; it is first in line 3".into()),
        ("a: b\n<<: c".into(), "2:5", "\"<<\" adds a mapping, or a list of mappings, and this is a".into()),
        ("a: b\n<<: [[]]".into(), "2:6", "\"<<\" adds a mapping, or a list of mappings, and this is a list".into()),
        ("a: b\n<<: {}\n<<: {}".into(), "3:1", "\"<<\" is here twice".into()),
        // Documents.
        ("text".into(), "1:1", "a document is a mapping with \"kind\" and \"spec\"".into()),
        ("--- []".into(), "1:5", "a document is a mapping with \"kind\" and \"spec\"".into()),
        ("apiVersion: v1".into(), "1:1", "a document is a mapping with \"kind\" and \"spec\"".into()),
        (
            "knd: a/b\nspec: {}".into(),
            "1:1",
            "the field \"knd\" is not known; did you mean \"kind\"? (fields here: kind, spec)".into(),
        ),
        ("kind: a/b".into(), "1:1", "the field \"spec\" is missing".into()),
        ("kind: a/b\nspec:".into(), "1:1", "the field \"spec\" is missing".into()),
        ("\nspec: {}".into(), "2:1", "the field \"kind\" is missing".into()),
        ("kind: []\nspec: {}".into(), "1:7", "\"kind\" is a text that is not empty, and this is a list".into()),
        ("kind: http\nspec: {}".into(), "1:7", "\"kind\" is a name of the form".into()),
        (
            "kind: io.statefun.endpoints.v3/http\nspec: {}".into(),
            "1:7",
            "the kind \"io.statefun.endpoints.v3/http\" is not known; did you mean \
             \"io.statefun.endpoints.v1/http\"? (known: io.statefun.endpoints.v1/http, \
             io.statefun.endpoints.v2/http, io.statefun.kafka.v1/egress, io.statefun.kafka.v1/ingress, \
             io.statefun.kinesis.v1/egress, io.statefun.kinesis.v1/ingress, \
             io.statefun.playground.v1/egress, io.statefun.playground.v1/ingress)"
                .into(),
        ),
        // Endpoints.
        ("kind: io.statefun.endpoints.v2/http\nspec: 7".into(), "2:7", "\"spec\" is a mapping, and this is".into()),
        (v2("  transports: {}"), "5:3", v2_fields("transports", "; did you mean \"transport\"?")),
        (v2("  timeouts: {}"), "5:3", v2_fields("timeouts", "")),
        (v2("  transport: {}").replace("v2", "v1"), "5:3", "the field \"transport\" is not known".into()),
        (v2("").replace("functions: a/b", "functions:"), "3:3", "the field \"functions\" is missing".into()),
        (v2("").replace("  url", "  # url"), "3:3", "the field \"urlPathTemplate\" is missing".into()),
        (v2("").replace("http://c", "''"), "4:20", "\"urlPathTemplate\" is a text that is not empty, and".into()),
        (v2("").replace("a/b", "a"), "3:14", "functions are \"namespace/name\" or \"namespace/*\", and not \"a\"".into()),
        (v2("").replace("a/b", "'*/*'"), "3:14", "functions are \"namespace/name\"".into()),
        (v2("").replace("a/b", "a/b*"), "3:14", "functions are \"namespace/name\"".into()),
        (v2("").replace("a/b", "[a/b]"), "3:14", "\"functions\" is a text, and this is a list".into()),
        (v2("  maxNumBatchRequests: 0"), "5:24", "\"maxNumBatchRequests\" is a number from 1 to 2147483647, and not \"0\"".into()),
        (v2("  maxNumBatchRequests: 1e3"), "5:24", "\"maxNumBatchRequests\" is a number from".into()),
        (v2("  maxNumBatchRequests: -1"), "5:24", "\"maxNumBatchRequests\" is a number from".into()),
        (v2("  maxNumBatchRequests: 99999999999999999999"), "5:24", "\"maxNumBatchRequests\" is a number".into()),
        (v2("  maxNumBatchRequests: {}"), "5:24", "\"maxNumBatchRequests\" is a number, and this is a mapping".into()),
        (v2("  transport: async"), "5:14", "\"transport\" is a mapping, and this is a text or number".into()),
        (
            v2("  transport:\n    type: io.statefun.transports.v1/asnyc"),
            "6:11",
            "\"type\" cannot be \"io.statefun.transports.v1/asnyc\"; did you mean \
             \"io.statefun.transports.v1/async\"? (possible: io.statefun.transports.v1/async, \
             io.statefun.transports.v1/okhttp)"
                .into(),
        ),
        (v2("  transport:\n    poolsize: 7"), "6:5", "the field \"poolsize\" is not known; did you mean \"pool_size\"?".into()),
        (
            v2("  transport:\n    type: io.statefun.transports.v1/okhttp\n    call: 1s"),
            "7:5",
            "the field \"call\" is not known (fields here: type, timeouts)".into(),
        ),
        (v2("  transport:\n    timeouts:\n      cal: 1s"), "7:7", "the field \"cal\" is not known; did you mean \"call\"?".into()),
        (v2("  transport:\n    call: soon"), "6:11", "\"call\" is a duration such as \"20 s\" or \"1min\", and not \"soon\": it does not begin".into()),
        (v2("  transport:\n    call: 1 weak"), "6:11", "\"call\" is a duration such as \"20 s\" or \"1min\", and not \"1 weak\": units are".into()),
        (v2("  transport:\n    call: 0s"), "6:11", "\"call\" is a duration such as \"20 s\" or \"1min\", and not \"0s\": it is more than nothing".into()),
        (v2("  transport:\n    timeouts: {read: 0}"), "6:22", "\"read\" is a duration such".into()),
        (v2("  transport:\n    call: 10s\n    connect: 11s"), "7:14", "the connect timeout, 11s, is longer than that of the call, 10s".into()),
        (v2("  transport:\n    timeouts: {read: 61s}"), "6:22", "the read timeout, 61s, is longer than that of the call, 60s".into()),
        (v2("  timeouts: {write: 61s}").replace("v2", "v1"), "5:21", "the write timeout, 61s, is longer".into()),
        (v2("  transport: {pool_size: 0}"), "5:26", "\"pool_size\" is a number from 1".into()),
        (v2("  transport: {payload_max_bytes: 32MiB}"), "5:34", "\"payload_max_bytes\" is a number from 1".into()),
        (v2("---") + &v2(""), "8:14", "\"a/b\" is bound twice; it is first at m:3:14".into()),
        (v2("---") + &v2("").replace("a/b", "a/c\n  <<: [7]"), "9:8", "\"<<\" adds".into()),
        // Placeholders.
        (v2("  maxNumBatchRequests: ${MAX}"), "5:24", "there is no value for the placeholder \"MAX\"".into()),
        (v2("").replace("http://c", "'http://${HOST:c'"), "4:20", "the placeholder \"${HOST:c\" is not valid: it is not closed".into()),
        (v2("  maxNumBatchRequests: ${SECRET}"), "5:24", "\"maxNumBatchRequests\" is a number from 1 to 2147483647, and not \"${SECRET}\"".into()),
        (v2("  ${PORT}: 7"), "5:3", v2_fields("${PORT}", "")),
        // Version 3.0.
        (legacy("\"3.0\"", "'3.1'"), "1:10", "the version is \"3.0\" or not there, and not \"3.1\"".into()),
        (legacy("\"3.0\"", "1.0"), "1:10", "the version is \"3.0\"".into()),
        (legacy("type: remote", "type: embedded"), "5:11", "\"type\" cannot be \"embedded\"".into()),
        (legacy("ingresses:", "ingreses:"), "17:5", "the field \"ingreses\" is not known; did you mean \"ingresses\"?".into()),
        (legacy("kind: http", "kind: grpc"), "10:19", "\"kind\" is a name of the form".into()),
        (legacy("kind: http", "kind: http\n            id: a/b"), "11:13", "the field \"id\" is not known".into()),
        (legacy("            id: java.showcase.io/user-logins\n", ""), "20:13", "the field \"id\" is missing".into()),
        (legacy("            address", "            id: a/b\n            address"), "23:13", "\"id\" is here twice; it is first in line 21".into()),
        (legacy("          spec:\n            address", "          sepc:\n            address"), "22:11", "the field \"sepc\" is not known; did you mean \"spec\"?".into()),
        ("version: '3.0'\nmodule: {meta: {type: remote}, spec: {endpoints: [{}]}}".into(), "2:51", "the field \"endpoint\" is missing".into()),
        // Kafka.
        (kafka("id: com.example/users", "id: users"), "3:7", "\"id\" is a name of the form \"namespace/name\", and not \"users\"".into()),
        (kafka("  address: kafka-broker:9092\n", ""), "3:3", "the field \"address\" is missing".into()),
        (kafka("  consumerGroupId: my-consumer-group\n", "").replace("- group.id: another", ""), "3:3", "the field \"consumerGroupId\" is missing".into()),
        (kafka("consumerGroupId: my", "consumerGroupID: my"), "5:3", "the field \"consumerGroupID\" is not known; did you mean \"consumerGroupId\"?".into()),
        (kafka("Position: earliest", "Position: early"), "6:28", "\"autoOffsetResetPosition\" cannot be \"early\"".into()),
        (kafka("type: specific-offsets", "type: latest"), "9:5", "the field \"offsets\" is not known (fields here: type)".into()),
        (kafka("    type: specific-offsets\n", ""), "8:5", "the field \"type\" is missing".into()),
        (kafka("type: specific-offsets", "typ: specific-offsets"), "8:5", "the field \"typ\" is not known; did you mean \"type\"?".into()),
        (kafka("user-topic/0: 91", "user-topic: 91"), "10:21", "\"user-topic\" is not of the form \"topic/partition\"".into()),
        (kafka("user-topic/0: 91", "user-topic/0: -3"), "10:23", "\"user-topic/0\" is a number from 0".into()),
        (kafka("a/b/11", "user-topic/0"), "11:9", "\"user-topic/0\" is here twice; it is first in line 10".into()),
        (kafka("user-topic/0: 91", "user-topic/0"), "10:9", "an item of \"offsets\" is a mapping".into()),
        (kafka("type: specific-offsets", "type: date").replacen("offsets:", "date: 2020-02-01 04:15:00.00 Z #", 1).replace("      - user-topic/0: 91\n      - a/b/11: 0\n", ""), "9:11", "\"date\" is a date such as".into()),
        (kafka("- topic: user-topic", "- topic: \"007\""), "18:14", "\"007\" is here twice; it is first in line 13".into()),
        (kafka("      valueType: com.example/User\n", ""), "13:7", "the field \"valueType\" is missing".into()),
        (kafka("com.example/User", "User"), "14:18", "\"valueType\" is a name".into()),
        (kafka("[com.example.fns/agent]", "[]"), "20:16", "\"targets\" is a list that is not empty, and this is an empty list".into()),
        (kafka("[com.example.fns/agent]", "com.example.fns/agent"), "20:16", "\"targets\" is a list".into()),
        (kafka("[com.example.fns/agent]", "[com.example.fns/*]"), "20:17", "an item of \"targets\" is a name".into()),
        (kafka("- fetch.min.bytes: 100", "- fetch.min.bytes:"), "24:22", "\"fetch.min.bytes\" is a text, and this is nothing".into()),
        (kafka("    - security.protocol: SASL_SSL", "    - group.id: twice"), "25:7", "\"group.id\" is here twice; it is first in line 22".into()),
        (kafka("transactionTimeout: 15min", "transactionTimeoutMillis: 15min"), "33:31", "\"transactionTimeoutMillis\" is a number from 1".into()),
        (kafka("    transactionTimeout: 15min\n", ""), "32:5", "the field \"transactionTimeout\" is missing".into()),
        (kafka("transactionTimeout: 15min", "transactionTimeout: 0"), "33:25", "\"transactionTimeout\" is a duration".into()),
        (kafka("type: exactly-once", "type: at-least-once"), "33:5", "the field \"transactionTimeout\" is not known (fields here: type)".into()),
        (KAFKA.to_owned() + "---\n" + &kafka("consumerGroupId", "consumerGroupId"), "39:7", "the id \"com.example/users\" is there twice; it is first at m:3:7".into()),
        (KAFKA.to_owned() + "---\n" + &KINESIS.replace("${SECRET}", "x"), "39:7", "the id \"com.example/users\" is there twice".into()),
        // Kinesis.
        (kinesis("type: specific", "type: specifics"), "4:21", "\"type\" cannot be \"specifics\"; did you mean \"specific\"?".into()),
        (kinesis(", id: us-west-2", ""), "4:14", "the field \"id\" is missing".into()),
        (kinesis("    secretAccessKey: ${SECRET}\n", ""), "6:5", "the field \"secretAccessKey\" is missing".into()),
        (kinesis("https://", "http://"), "22:48", "an endpoint is a URL that begins with \"https://\"".into()),
        (kinesis("profileName: other, ", ""), "23:19", "the field \"profileName\" is missing".into()),
        (kinesis("maxOutstandingRecords: 9999", "maxOutstandingRecords: 0"), "24:26", "\"maxOutstandingRecords\" is a number from 1".into()),
        (kinesis("type: date", "type: group-offsets"), "10:11", "\"type\" cannot be \"group-offsets\"".into()),
        // A program's own.
        (GREETER.replace("port: 8090", "port: 65536"), "8:9", "\"port\" is a number from 0 to 65535, and not \"65536\"".into()),
        (GREETER.replace("port: 8090", "prot: 8090"), "8:3", "the field \"prot\" is not known; did you mean \"port\"? (fields here: port)".into()),
        (GREETER.replace("- greets", "- [greets]"), "14:7", "an item of \"topics\" is a text that is not empty, and this is a list".into()),
    ];
    let mut wrong = Vec::new();
    for (text, place, message) in &table {
        match parse(text) {
            Ok(module) => wrong.push(format!("{text}\n  is {module:?}, and not {place} {message}")),
            Err(error) => {
                let told = error.to_string();
                if !told.starts_with(&format!("m:{place}: {message}")) {
                    wrong.push(format!("{text}\n  is {told}\n and not m:{place}: {message}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.len(), wrong.join("\n"));
}

#[test]
fn documents_without_anything_are_passed_over() {
    for text in ["", "\n", "---\n---\n", "# nothing\n", "--- ~\n", "null\n...\n"] {
        let module = parse(text).unwrap();
        assert_eq!((module.endpoints().functions().count(), module.connections().len()), (0, 0));
    }
    let text = format!("---\n---\n{GREETER}---\n# nothing\n---\n");
    assert_eq!(connected(&text), connected(GREETER));
    // A mark of UTF-8, and line ends of Windows.
    let text = format!("\u{feff}{}", GREETER.replace('\n', "\r\n"));
    assert_eq!(connected(&text), connected(GREETER));
}

#[test]
fn what_is_put_in_is_text_and_nothing_else() {
    let placeholders = |port: &str, topic: &str| {
        let placeholders = Placeholders::none().with("PORT", port).with("TOPIC", topic);
        let text = GREETER.replace("8090", "${PORT}").replace("- greets", "- ${TOPIC:none}");
        let parsed = Module::parse("m", &text, &placeholders, &playground());
        parsed
            .map(|module| module.into_parts().1.into_iter().map(|it| it.value).collect::<Vec<_>>())
    };
    for topic in
        ["a]\n    - b", "a: b", "[a]", "*a", "~", "null", "# a", "\"", "${PORT}", "a\n---\n"]
    {
        let topics = vec![topic.to_owned()];
        let read = placeholders("7", topic).unwrap();
        assert_eq!(read, [Known::Ingress { port: 7 }, Known::Egress { port: 8091, topics }]);
    }
    // Keys are as they are written, also those of which there are any.
    let keys = KAFKA.replace("acks: all", "${UNKNOWN}$${: ${PORT}");
    let Some(Known::ToKafka(egress)) = connected(&keys).pop() else { panic!() };
    assert_eq!(egress.properties.iter().collect::<Vec<_>>(), [("${UNKNOWN}$${", "8090")]);
    let error = placeholders("7 # seven", "a").unwrap_err();
    assert_eq!((error.file(), error.line(), error.column()), ("m", 8, 9));
    assert!(error.to_string().ends_with("and not \"${PORT}\""), "{error}");
    let error = placeholders("7", "").unwrap_err();
    assert!(error.to_string().ends_with("and this is an empty text"), "{error}");
}

#[test]
fn anchors_and_merges_are_what_they_stand_for() {
    let text = "\
kind: io.statefun.endpoints.v2/http
spec: &spec
  functions: a/*
  urlPathTemplate: &url 'http://c'
  transport: &transport {call: 7s, pool_size: 8}
---
kind: &kind io.statefun.endpoints.v2/http
spec:
  functions: b/*
  urlPathTemplate: http://${PORT}
  transport: &transport {call: 7s, pool_size: 8}
---
version: '3.0'
module:
  meta: {type: remote}
  spec:
    endpoints:
      - endpoint: &one
          meta: {kind: io.statefun.endpoints.v2/http}
          spec: &first
            functions: c/*
            urlPathTemplate: http://d
            transport: &t {call: 9s}
      - endpoint:
          <<: *one
          spec:
            functions: d/*
            <<: [{urlPathTemplate: http://e}, *first]
            transport: {<<: *t, pool_size: 3}
";
    let module = parse(text).unwrap();
    assert_eq!(module.endpoints().functions().collect::<Vec<_>>(), ["a/*", "b/*", "c/*", "d/*"]);
    let options = &module.endpoints().get("d/*").unwrap().options;
    assert_eq!((&*options.url, options.connections_idle_max), ("http://e", 3));
    assert_eq!(options.call_timeout, Duration::from_secs(9));
    // What is there itself comes first, wherever it stands.
    let merged = "- <<: [{acks: none, a: 1}, {a: 2, b: 3}]\n      acks: all";
    let kafka = KAFKA.replace("- acks: all", merged);
    let Some(Known::ToKafka(egress)) = connected(&kafka).pop() else { panic!() };
    let properties: Vec<_> = egress.properties.iter().collect();
    assert_eq!(properties, [("a", "1"), ("acks", "all"), ("b", "3")]);
    // In quotes, it is a key like any other.
    assert!(
        parse("'<<': {kind: a/b}\nspec: {}")
            .unwrap_err()
            .to_string()
            .contains("\"<<\" is not known")
    );
}

/// However it is written, and whatever aliases stand for.
#[test]
fn what_is_read_has_bounds() {
    let mistake = |text: &str| {
        let error = within(48 << 20, || parse(text).unwrap_err());
        error.kind().clone()
    };
    let (deep, many) =
        (Mistake::TooDeep { max: tree::DEPTH_MAX }, Mistake::TooMany { max: tree::NODES_MAX });
    for depth in [tree::DEPTH_MAX + 1, 200] {
        assert_eq!(mistake(&("[".repeat(depth) + &"]".repeat(depth))), deep);
        assert_eq!(mistake(&("- ".repeat(depth) + "a")), deep);
    }
    assert!(matches!(
        mistake(&"[".repeat(100_000)),
        Mistake::Syntax { .. } | Mistake::TooDeep { .. }
    ));
    assert_eq!(mistake(&"{a: ".repeat(100)), deep);
    let fits = "[".repeat(tree::DEPTH_MAX) + &"]".repeat(tree::DEPTH_MAX);
    assert_eq!(mistake(&fits), Mistake::NotAComponent);
    // Each is as deep as the one before, and one more.
    let deeper = (0..100).fold("a: &a0 []\n".to_owned(), |text, at| {
        text + &format!("b{at}: &a{} [*a{at}]\n", at + 1)
    });
    assert_eq!(mistake(&deeper), deep);

    assert_eq!(mistake(&format!("[{}]", "a,".repeat(tree::NODES_MAX))), many);
    // Each stands for ten of the one before: a billion.
    let laughs = (0..9).fold("a0: &a0 [a, a, a, a, a, a, a, a, a, a]\n".to_owned(), |text, at| {
        let ten = format!("*a{at}, ").repeat(10);
        text + &format!("a{0}: &a{0} [{ten}]\n", at + 1)
    });
    assert_eq!(mistake(&laughs), many);

    assert_eq!(
        mistake(&" ".repeat(tree::BYTES_MAX + 1)),
        Mistake::TooLarge { max: tree::BYTES_MAX }
    );
    assert!(parse(&" ".repeat(tree::BYTES_MAX)).is_ok());
    // Long texts are not copied, and what is put in is counted.
    let long = format!("a: &a {}\nb: [{}]", "x".repeat(100_000), "*a,".repeat(40_000));
    assert_eq!(mistake(&long), Mistake::NotAComponent);
    let placeholders = Placeholders::none().with("A", "x".repeat(100_000));
    let parsed = Module::parse(
        "m",
        &format!("[{}]", "\"${A}\",".repeat(1000)),
        &placeholders,
        &playground(),
    );
    let error = parsed.unwrap_err();
    assert_eq!(error.kind(), &Mistake::TooLong { max: tree::FILLED_MAX });
    assert_eq!((error.line(), error.column()), (1, 168 * 7 - 5));
    // Keys are compared once.
    let keys: String = (0..20_000).map(|key| format!("key{key}: 1\n")).collect();
    assert_eq!(mistake(&keys), Mistake::NotAComponent);
}

#[test]
fn modules_are_put_together() {
    let one = |text: &str, file: &str| {
        Module::parse(file, text, &Placeholders::none(), &everything()).unwrap()
    };
    let other = GREETER.replace("example/", "other/").replace("8090", "8092");
    let both = one(GREETER, "a").and(one(&other, "b")).unwrap();
    assert_eq!(both.endpoints().functions().collect::<Vec<_>>(), ["example/*", "other/*"]);
    assert_eq!(both.connections()[2].value, Known::Ingress { port: 8092 });
    let error = one(GREETER, "a").and(one(GREETER, "b")).unwrap_err();
    assert_eq!(error.to_string(), "b:3:14: \"example/*\" is bound twice; it is first at a:3:14");
    let kafka = KAFKA.replace("${SECRET}", "x");
    let error = one(&kafka, "a").and(one(&kafka, "b")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "b:3:7: the id \"com.example/users\" is there twice; it is first at a:3:7"
    );
}

#[test]
fn endpoints_are_bound_and_what_is_wrong_is_told_where_they_are() {
    let bind = |text: &str, functions: Functions<TypedValue>| {
        let bound = parse(text).unwrap().bind(functions);
        bound.map(|functions| format!("{functions:?}")).map_err(|error| error.to_string())
    };
    let functions = Functions::<TypedValue>::new;
    let text = v2("---") + &v2("").replace("a/b", "a/*");
    let bound = bind(&text, functions()).unwrap();
    assert!(bound.contains(r#"functions: ["a/b"], namespaces: ["a"]"#), "{bound}");

    const TYPE: FunctionType<TypedValue> = FunctionType::new("a/b");
    let taken = functions().embedded(TYPE, Function::new(|_, _| Ok(())));
    assert_eq!(bind(&text, taken).unwrap_err(), "m:3:14: function type \"a/b\" is bound twice");
    for (url, why) in [
        ("ftp://c", "m:3:14: the endpoint \"ftp://c\" of function \"a/b\" is not valid"),
        ("nowhere", "m:3:14: the endpoint \"nowhere\" of function \"a/b\" is not valid"),
        ("http://user:secret@c:port", "m:3:14: the endpoint \"http://…@c:port\" of function"),
    ] {
        let error = bind(&v2("").replace("http://c", url), functions()).unwrap_err();
        assert!(error.starts_with(why), "{error}");
    }
    // There is a runtime where functions are checked, which is not a module's affair.
    let module = parse(&text).unwrap();
    let error = module.bind(functions()).unwrap().check().unwrap_err();
    assert!(error.is_no_runtime());
    fn is_for_all_workers<T: Send + Sync + Clone + 'static>(_: &T) {}
    is_for_all_workers(module.endpoints());
    is_for_all_workers(&module);
}

/// Whatever the bytes are, they are a module or an error at some place of theirs, and take bounded memory.
#[test]
fn any_bytes_are_a_module_or_an_error_at_a_place() {
    let merged = "a: &a {kind: io.statefun.endpoints.v2/http}\n---\n<<: &b {kind: \
                  io.statefun.endpoints.v2/http}\nspec: {functions: a/*, urlPathTemplate: '${PORT:x}'}";
    let legacy = SHOWCASE.replace("kafka:9092", "${PORT}");
    let mut inputs: Vec<Vec<u8>> = [GREETER, SHOPPING_CART, KAFKA, KINESIS, &legacy]
        .map(|text| text.as_bytes().to_vec())
        .to_vec();
    inputs.push(merged.split("---\n").last().unwrap().as_bytes().to_vec());
    fuzz("modules", 8000, &inputs, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return false };
        match within(48 << 20, || parse(text)) {
            Ok(module) => {
                let again = parse(text).unwrap();
                assert_eq!(format!("{module:?}"), format!("{again:?}"));
                // Where they lead may be nonsense, which is an error as well.
                drop(module.bind(Functions::<TypedValue>::new()));
                true
            }
            Err(error) => {
                // A line may also end as YAML has it, and not only as Rust does.
                let lines =
                    text.matches(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count() + 2;
                assert!((1..=lines).contains(&error.line()), "{error}");
                assert!((1..=text.chars().count() + 2).contains(&error.column()), "{error}");
                assert_eq!(error.file(), "m");
                false
            }
        }
    });
}
