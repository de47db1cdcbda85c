//! The messages are what the `.proto` files say, and those say what Stateful Functions 3.x says.
//!
//! With `REGENERATE=1` in the environment, the checked-in code is written anew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{env, fs};

use protox::prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};
use timely_statefun_proto::{service_names, type_names};

const FILES: &[&str] = &[
    "sdk/request-reply.proto",
    "sdk/service.proto",
    "types/types.proto",
    "io/kafka-egress.proto",
    "io/kinesis-egress.proto",
];

/// What the published format has: a message, then its fields' numbers, names and types.
const PUBLISHED: &str = "
reqreply.Address: 1 namespace string, 2 type string, 3 id string
reqreply.TypedValue: 1 typename string, 2 has_value bool, 3 value bytes
reqreply.ToFunction: 100 invocation ToFunction.InvocationBatchRequest in request
reqreply.ToFunction.PersistedValue: 1 state_name string, 2 state_value TypedValue
reqreply.ToFunction.Invocation: 1 caller Address, 2 argument TypedValue
reqreply.ToFunction.InvocationBatchRequest: 1 target Address, 2 state repeated ToFunction.PersistedValue, 3 invocations repeated ToFunction.Invocation
reqreply.FromFunction: 100 invocation_result FromFunction.InvocationResponse in response, 101 incomplete_invocation_context FromFunction.IncompleteInvocationContext in response
reqreply.FromFunction.PersistedValueMutation: 1 mutation_type FromFunction.PersistedValueMutation.MutationType(DELETE=0 MODIFY=1), 2 state_name string, 3 state_value TypedValue
reqreply.FromFunction.Invocation: 1 target Address, 2 argument TypedValue
reqreply.FromFunction.DelayedInvocation: 1 delay_in_ms int64, 2 target Address, 3 argument TypedValue, 10 is_cancellation_request bool, 11 cancellation_token string
reqreply.FromFunction.EgressMessage: 1 egress_namespace string, 2 egress_type string, 3 argument TypedValue
reqreply.FromFunction.InvocationResponse: 1 state_mutations repeated FromFunction.PersistedValueMutation, 2 outgoing_messages repeated FromFunction.Invocation, 3 delayed_invocations repeated FromFunction.DelayedInvocation, 4 outgoing_egresses repeated FromFunction.EgressMessage
reqreply.FromFunction.ExpirationSpec: 1 mode FromFunction.ExpirationSpec.ExpireMode(NONE=0 AFTER_WRITE=1 AFTER_INVOKE=2), 2 expire_after_millis int64
reqreply.FromFunction.PersistedValueSpec: 1 state_name string, 2 expiration_spec FromFunction.ExpirationSpec, 3 type_typename string
reqreply.FromFunction.IncompleteInvocationContext: 1 missing_values repeated FromFunction.PersistedValueSpec
types.BooleanWrapper: 1 value bool
types.IntWrapper: 1 value sfixed32
types.FloatWrapper: 1 value float
types.LongWrapper: 1 value sfixed64
types.DoubleWrapper: 1 value double
types.StringWrapper: 1 value string
egress.KafkaProducerRecord: 1 key string, 2 value_bytes bytes, 3 topic string
egress.KinesisEgressRecord: 1 partition_key string, 2 value_bytes bytes, 3 stream string, 4 explicit_hash_key string
";

fn crate_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What stands in the folder, by the names of its files.
fn texts(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    entries.map(|path| (name(&path), fs::read_to_string(&path).unwrap())).collect()
}

/// The words after the package that all messages are in.
fn short(name: &str) -> &str {
    name.strip_prefix("io.statefun.sdk.").unwrap_or_else(|| panic!("{name} has another package"))
}

fn field_line(field: &FieldDescriptor) -> String {
    let in_package = |name: &str| short(name).split_once('.').unwrap().1.to_owned();
    let kind = match field.kind() {
        Kind::Message(message) => in_package(message.full_name()),
        Kind::Enum(values) => {
            let each = values.values().map(|value| format!("{}={}", value.name(), value.number()));
            format!("{}({})", in_package(values.full_name()), each.collect::<Vec<_>>().join(" "))
        }
        scalar => format!("{scalar:?}").to_lowercase(),
    };
    let repeated = if field.is_list() { "repeated " } else { "" };
    assert!(!field.is_map() && !field.is_group(), "{}", field.full_name());
    let one_of = field.containing_oneof().map(|one| format!(" in {}", one.name()));
    format!("{} {} {repeated}{kind}{}", field.number(), field.name(), one_of.unwrap_or_default())
}

fn message_line(message: &MessageDescriptor) -> String {
    let fields: Vec<_> = message.fields().map(|field| field_line(&field)).collect();
    format!("{}: {}", short(message.full_name()), fields.join(", "))
}

#[test]
fn the_checked_in_code_is_what_the_proto_files_generate() {
    let protos = protox::compile(FILES, [crate_root().join("proto")]).unwrap();
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("generated");
    fs::create_dir_all(&scratch).unwrap();
    texts(&scratch).keys().for_each(|name| fs::remove_file(scratch.join(name)).unwrap());
    let mut config = prost_build::Config::new();
    config.bytes(["."]).out_dir(&scratch).compile_fds(protos).unwrap();

    let folder = crate_root().join("src/generated");
    let generated = texts(&scratch);
    assert_eq!(generated.len(), 3, "{:?}", generated.keys());
    if env::var_os("REGENERATE").is_some() {
        for (name, text) in &generated {
            fs::write(folder.join(name), text).unwrap();
        }
    }
    let checked_in = texts(&folder);
    assert!(
        generated.keys().eq(checked_in.keys()),
        "{:?} are generated, {:?} are checked in; run this test with REGENERATE=1",
        generated.keys(),
        checked_in.keys(),
    );
    for (name, text) in &generated {
        assert!(
            *text == checked_in[name],
            "{name} is out of date; run this test with REGENERATE=1"
        );
    }
}

#[test]
fn names_and_numbers_are_the_published_ones() {
    let protos = protox::compile(FILES, [crate_root().join("proto")]).unwrap();
    let pool = DescriptorPool::from_file_descriptor_set(protos).unwrap();
    let ours: BTreeSet<_> = pool.all_messages().map(|message| message_line(&message)).collect();
    let published: BTreeSet<_> = PUBLISHED.trim().lines().map(str::to_owned).collect();
    let other: Vec<_> = ours.symmetric_difference(&published).collect();
    assert!(other.is_empty(), "only ours, or only published:\n{other:#?}");
    assert_eq!(ours.len(), 23);
}

#[test]
fn the_names_of_egress_records_are_those_of_their_messages() {
    let protos = protox::compile(FILES, [crate_root().join("proto")]).unwrap();
    let pool = DescriptorPool::from_file_descriptor_set(protos).unwrap();
    for name in [type_names::KAFKA_RECORD, type_names::KINESIS_RECORD] {
        let message = name.strip_prefix("type.googleapis.com/").unwrap();
        assert!(pool.get_message_by_name(message).is_some(), "{name}");
    }
}

#[test]
fn the_service_has_one_method_of_the_two_messages() {
    let protos = protox::compile(FILES, [crate_root().join("proto")]).unwrap();
    let pool = DescriptorPool::from_file_descriptor_set(protos).unwrap();
    let methods: Vec<_> =
        pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()).collect();
    let [invoke] = &methods[..] else { panic!("{methods:?}") };
    let path = format!("/{}/{}", invoke.parent_service().full_name(), invoke.name());
    assert_eq!(path, service_names::INVOKE_PATH);
    let (input, output) = (invoke.input(), invoke.output());
    assert_eq!((input.name(), output.name()), ("ToFunction", "FromFunction"));
    assert!(!invoke.is_client_streaming() && !invoke.is_server_streaming());
}
