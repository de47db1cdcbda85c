//! What `examples/kubernetes` deploys: its manifests fit together, to the programs that they start, and to what the page
//! `docs/deploying-functions.md` says.
//!
//! `cargo test` builds the examples before it runs tests; before `cargo test --test deployment`, run `cargo build
//! --example checkpointed --example polyglot`.
#![cfg(unix)]

#[path = "../operators/tests/support/cluster.rs"]
#[allow(dead_code)]
mod cluster;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use saphyr::{LoadableYamlNode, MarkedYamlOwned, ScalarOwned, YamlDataOwned};
use serde_json::{Map, Value};
use timely_statefun::serve::{Answer, RequestReply, ServedOptions, Server};
use timely_statefun::{Endpoint, FunctionType, Functions, TypedValue};

const FILES: [&str; 3] = ["functions.yaml", "pipeline.yaml", "sidecar.yaml"];

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(file: &str) -> String {
    std::fs::read_to_string(root("examples/kubernetes").join(file)).unwrap()
}

fn page() -> String {
    std::fs::read_to_string(root("docs/deploying-functions.md")).unwrap()
}

/// One object of a manifest.
struct Object {
    /// Where it begins.
    at: String,
    value: Value,
}

impl Object {
    fn get(&self, pointer: &str) -> &Value {
        self.value.pointer(pointer).unwrap_or(&Value::Null)
    }

    fn text(&self, pointer: &str) -> &str {
        self.get(pointer).as_str().unwrap_or_default()
    }

    fn kind(&self) -> &str {
        self.text("/kind")
    }

    fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    fn is_workload(&self) -> bool {
        matches!(self.kind(), "Deployment" | "StatefulSet")
    }

    fn labels(&self) -> &Value {
        self.get("/spec/template/metadata/labels")
    }

    fn containers(&self) -> impl Iterator<Item = &Value> {
        let pod = "/spec/template/spec";
        let first = list(self.get(&format!("{pod}/initContainers")));
        first.iter().chain(list(self.get(&format!("{pod}/containers"))))
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn field<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// What YAML says, without where.
fn plain(node: &MarkedYamlOwned) -> Result<Value, String> {
    let wrong = |what: &str| {
        let (line, column) = (node.span.start.line(), node.span.start.col() + 1);
        Err(format!("line {line}, column {column}: {what}"))
    };
    Ok(match &node.data {
        YamlDataOwned::Value(ScalarOwned::Null) => Value::Null,
        YamlDataOwned::Value(ScalarOwned::Boolean(value)) => Value::from(*value),
        YamlDataOwned::Value(ScalarOwned::Integer(value)) => Value::from(*value),
        YamlDataOwned::Value(ScalarOwned::FloatingPoint(value)) => Value::from(value.0),
        YamlDataOwned::Value(ScalarOwned::String(value)) => Value::from(value.as_str()),
        YamlDataOwned::Sequence(nodes) => nodes.iter().map(plain).collect::<Result<_, _>>()?,
        YamlDataOwned::Mapping(entries) => {
            let mut object = Map::new();
            for (key, value) in entries {
                let YamlDataOwned::Value(ScalarOwned::String(name)) = &key.data else {
                    return wrong("a key is no text");
                };
                object.insert(name.clone(), plain(value)?);
            }
            Value::Object(object)
        }
        _ => return wrong("this is neither a value nor a list nor a map"),
    })
}

fn parse(file: &str, text: &str) -> Result<Vec<Object>, String> {
    let documents =
        MarkedYamlOwned::load_from_str(text).map_err(|error| format!("{file}: {error}"))?;
    let object = |document: &MarkedYamlOwned| {
        let value = plain(document).map_err(|wrong| format!("{file}: {wrong}"))?;
        Ok(Object { at: format!("{file}:{}", document.span.start.line()), value })
    };
    documents.iter().map(object).collect()
}

/// All names of fields that the manifests have. Another one is a slip of the pen, which Kubernetes may ignore.
const FIELDS: &str = "
    accessModes apiVersion args automountServiceAccountToken averageUtilization claimName clusterIP configMap
    containerPort containers cpu data emptyDir env failureThreshold fieldPath fieldRef from fsGroup httpGet image
    ingress initContainers kind labels limits livenessProbe matchLabels maxReplicas maxSurge maxUnavailable memory
    metadata metrics minReplicas mountPath name path periodSeconds persistentVolumeClaim podManagementPolicy
    podSelector policyTypes port ports protocol publishNotReadyAddresses readOnly readinessProbe replicas requests
    resource resources restartPolicy rollingUpdate runAsNonRoot runAsUser scaleTargetRef securityContext selector
    serviceName spec storage strategy target targetPort template terminationGracePeriodSeconds timeoutSeconds type
    updateStrategy value valueFrom volumeMounts volumes";

fn fields(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| fields(value, found)),
        Value::Object(object) => {
            for (name, value) in object {
                found.insert(name.clone());
                // What is in these has names of one's own.
                let own = matches!(name.as_str(), "labels" | "matchLabels" | "data");
                let own = own || name == "selector" && value.get("matchLabels").is_none();
                if !own {
                    fields(value, found);
                }
            }
        }
        _ => {}
    }
}

/// Whether all that is asked for is among some labels. Nothing asked for would be everything.
fn selects(asked: &Value, labels: &Value) -> bool {
    let asked = asked.as_object().filter(|asked| !asked.is_empty());
    asked.is_some_and(|asked| asked.iter().all(|(name, value)| labels.get(name) == Some(value)))
}

/// The ports of a workload, by name.
fn ports(workload: &Object) -> BTreeMap<&str, u64> {
    let ports = workload.containers().flat_map(|container| list(&container["ports"]));
    ports
        .filter_map(|port| Some((port["name"].as_str()?, port["containerPort"].as_u64()?)))
        .collect()
}

/// The words after options, by option.
fn options(args: &[Value]) -> BTreeMap<&str, &str> {
    let words: Vec<&str> = args.iter().filter_map(Value::as_str).collect();
    let pairs = words.windows(2).filter(|pair| pair[0].starts_with('-'));
    pairs.map(|pair| (pair[0], pair[1])).collect()
}

/// Where a volume is mounted under which the path is, and what is left of the path.
fn mounted<'a>(container: &'a Value, path: &'a str) -> Option<(&'a str, &'a str)> {
    list(&container["volumeMounts"]).iter().find_map(|mount| {
        let rest = path.strip_prefix(field(mount, "mountPath"))?;
        let rest = if rest.is_empty() { rest } else { rest.strip_prefix('/')? };
        Some((field(mount, "name"), rest))
    })
}

fn volume<'a>(workload: &'a Object, name: &str) -> Option<&'a Value> {
    list(workload.get("/spec/template/spec/volumes"))
        .iter()
        .find(|volume| field(volume, "name") == name)
}

/// All that is wrong with the objects of one manifest.
fn problems(objects: &[Object]) -> Vec<String> {
    let mut found = Vec::new();
    let mut known = BTreeSet::new();
    for object in objects {
        let (kind, name) = (object.kind(), object.name());
        let mut check = |holds: bool, what: String| {
            if !holds {
                found.push(format!("{}: {kind} \"{name}\": {what}", object.at));
            }
        };
        for (pointer, what) in
            [("/apiVersion", "apiVersion"), ("/kind", "kind"), ("/metadata/name", "name")]
        {
            check(!object.text(pointer).is_empty(), format!("it has no {what}"));
        }
        let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        check(name.chars().all(label), "its name is no name of a host".to_owned());
        check(known.insert((kind, name)), "it is there twice".to_owned());
        let mut names = BTreeSet::new();
        fields(&object.value, &mut names);
        for field in names {
            check(
                FIELDS.split_whitespace().any(|f| f == field),
                format!("unknown field \"{field}\""),
            );
        }
        match kind {
            "Deployment" => check_workload(object, objects, &mut check),
            "StatefulSet" => {
                check_workload(object, objects, &mut check);
                check_pipeline(object, objects, &mut check);
            }
            "Service" => check_service(object, objects, &mut check),
            "NetworkPolicy" => check_network_policy(object, objects, &mut check),
            "PodDisruptionBudget" => {
                let asked = object.get("/spec/selector/matchLabels");
                let selected =
                    objects.iter().any(|o| o.is_workload() && selects(asked, o.labels()));
                check(selected, "it selects no pods".to_owned());
            }
            "HorizontalPodAutoscaler" => {
                let target = object.get("/spec/scaleTargetRef");
                let is = |o: &&Object| {
                    ["apiVersion", "kind"].iter().all(|f| o.value[f] == target[f])
                        && o.name() == field(target, "name")
                };
                let scaled = objects.iter().find(is);
                check(scaled.is_some(), "what it scales is not there".to_owned());
                let fixed = scaled.is_some_and(|scaled| !scaled.get("/spec/replicas").is_null());
                check(!fixed, "what it scales says itself how many there are".to_owned());
            }
            "ConfigMap" => {
                let used = format!("\"configMap\":{{\"name\":\"{name}\"}}");
                let used = objects.iter().any(|o| o.value.to_string().contains(&used));
                check(used, "nobody uses it".to_owned());
            }
            "PersistentVolumeClaim" => {
                let used = format!("\"claimName\":\"{name}\"");
                check(
                    objects.iter().any(|o| o.value.to_string().contains(&used)),
                    "nobody uses it".to_owned(),
                );
                let shared = object.get("/spec/accessModes") == &Value::from(vec!["ReadWriteMany"]);
                check(shared, "not all processes can write to it".to_owned());
            }
            _ => check(false, "what this is checked for is not said".to_owned()),
        }
    }
    found
}

fn check_service(object: &Object, objects: &[Object], check: &mut impl FnMut(bool, String)) {
    let asked = object.get("/spec/selector");
    let pods = objects.iter().find(|o| o.is_workload() && selects(asked, o.labels()));
    check(pods.is_some(), "it selects no pods".to_owned());
    let ports = pods.map(ports).unwrap_or_default();
    for port in list(object.get("/spec/ports")) {
        let target = field(port, "targetPort");
        check(ports.contains_key(target), format!("its pods have no port \"{target}\""));
    }
}

fn check_network_policy(object: &Object, objects: &[Object], check: &mut impl FnMut(bool, String)) {
    let asked = object.get("/spec/podSelector/matchLabels");
    let pods = objects.iter().find(|o| o.is_workload() && selects(asked, o.labels()));
    check(pods.is_some(), "it selects no pods".to_owned());
    let known = pods.map(ports).unwrap_or_default();
    let mut open = BTreeSet::new();
    for rule in list(object.get("/spec/ingress")) {
        for from in list(&rule["from"]) {
            let selected = selects(
                &from["podSelector"]["matchLabels"],
                pods.map_or(&Value::Null, Object::labels),
            );
            check(selected, "it lets others in than those that it is for".to_owned());
        }
        open.extend(list(&rule["ports"]).iter().map(|port| field(port, "port")));
    }
    for port in &open {
        check(known.contains_key(port), format!("its pods have no port \"{port}\""));
    }
    for port in known.keys() {
        check(open.contains(port), format!("nobody can reach the port \"{port}\""));
    }
}

fn check_workload(object: &Object, objects: &[Object], check: &mut impl FnMut(bool, String)) {
    let asked = object.get("/spec/selector/matchLabels");
    check(selects(asked, object.labels()), "its selector does not select its pods".to_owned());
    let volumes = list(object.get("/spec/template/spec/volumes"));
    let mut used = BTreeSet::new();
    let mut names = BTreeSet::new();
    for container in object.containers() {
        let name = field(container, "name");
        check(names.insert(name), format!("there are two containers \"{name}\""));
        let image = field(container, "image");
        check(
            image.starts_with("registry.example/"),
            format!("the image \"{image}\" is somebody's"),
        );
        let ports: Vec<&str> =
            list(&container["ports"]).iter().map(|port| field(port, "name")).collect();
        for probe in ["readinessProbe", "livenessProbe"] {
            let Some(get) = container.get(probe).map(|probe| &probe["httpGet"]) else { continue };
            let (port, path) = (field(get, "port"), field(get, "path"));
            check(
                ports.contains(&port),
                format!("{probe} asks at \"{port}\", which is no port of \"{name}\""),
            );
            let said = page().contains(&format!(".health(\"{path}\")"));
            check(said, format!("{probe} asks for \"{path}\", of which the page says nothing"));
        }
        for mount in list(&container["volumeMounts"]) {
            let mounted = field(mount, "name");
            used.insert(mounted);
            let there = volumes.iter().any(|volume| field(volume, "name") == mounted);
            check(there, format!("\"{name}\" mounts \"{mounted}\", which is no volume"));
        }
        // What is put into arguments is there, and each number is a text.
        let environment: Vec<&str> =
            list(&container["env"]).iter().map(|env| field(env, "name")).collect();
        for arg in list(&container["args"]) {
            let Some(arg) = arg.as_str() else {
                check(false, format!("the argument {arg} is no text"));
                continue;
            };
            if let Some(variable) = arg.strip_prefix("$(").and_then(|arg| arg.strip_suffix(')')) {
                check(
                    environment.contains(&variable),
                    format!("there is no variable \"{variable}\""),
                );
            }
        }
    }
    for volume in volumes {
        let name = field(volume, "name");
        check(used.contains(name), format!("nobody mounts \"{name}\""));
        let from = [
            ("ConfigMap", &volume["configMap"]["name"]),
            ("PersistentVolumeClaim", &volume["persistentVolumeClaim"]["claimName"]),
        ];
        for (kind, wanted) in
            from.into_iter().filter_map(|(kind, name)| Some((kind, name.as_str()?)))
        {
            let there = objects.iter().any(|o| o.kind() == kind && o.name() == wanted);
            check(
                there,
                format!("volume \"{name}\" is of {kind} \"{wanted}\", which is not there"),
            );
        }
    }
}

/// The processes of a pipeline find each other.
fn check_pipeline(object: &Object, objects: &[Object], check: &mut impl FnMut(bool, String)) {
    let name = object.name();
    let service = objects
        .iter()
        .find(|o| o.kind() == "Service" && o.name() == object.text("/spec/serviceName"));
    let Some(service) = service else { return check(false, "its Service is not there".to_owned()) };
    check(
        selects(service.get("/spec/selector"), object.labels()),
        "its Service is not its own".to_owned(),
    );
    check(service.text("/spec/clusterIP") == "None", "its Service gives pods no names".to_owned());
    let early = service.get("/spec/publishNotReadyAddresses") == &Value::Bool(true);
    check(early, "pods have no names before they are ready".to_owned());
    check(
        object.text("/spec/podManagementPolicy") == "Parallel",
        "it does not start together".to_owned(),
    );
    check(
        object.text("/spec/updateStrategy/type") == "OnDelete",
        "it is not replaced together".to_owned(),
    );
    check(
        object.text("/spec/template/spec/restartPolicy") == "Always",
        "it does not come back".to_owned(),
    );
    let isolated = objects.iter().any(|o| {
        o.kind() == "NetworkPolicy"
            && selects(o.get("/spec/podSelector/matchLabels"), object.labels())
    });
    check(isolated, "anybody can reach it".to_owned());
    let Some(container) = list(object.get("/spec/template/spec/containers")).first() else {
        return check(false, "it has no container".to_owned());
    };
    let options = options(list(&container["args"]));
    let option = |option: &str| options.get(option).copied().unwrap_or_default();
    let replicas = object.get("/spec/replicas").as_u64().unwrap_or(1);
    check(
        option("-n") == replicas.to_string(),
        format!("{replicas} pods, and -n {}", option("-n")),
    );
    check(option("-w").parse::<usize>().is_ok_and(|w| w > 0), "it has no workers".to_owned());
    let process = option("-p").trim_start_matches("$(").trim_end_matches(')');
    let of = list(&container["env"]).iter().find(|env| field(env, "name") == process);
    let index = of.is_some_and(|env| {
        env["valueFrom"]["fieldRef"]["fieldPath"]
            == "metadata.labels['apps.kubernetes.io/pod-index']"
    });
    check(index, "-p is not the number of the pod".to_owned());
    // The file of hosts is one of a ConfigMap, and its lines are the pods.
    let hosts = mounted(container, option("-h")).and_then(|(mount, file)| {
        let map = volume(object, mount)?["configMap"]["name"].as_str()?;
        let map = objects.iter().find(|o| o.kind() == "ConfigMap" && o.name() == map)?;
        map.get("/data")[file].as_str()
    });
    let Some(hosts) = hosts else { return check(false, "the file of -h is not there".to_owned()) };
    let service_ports: Vec<_> =
        list(service.get("/spec/ports")).iter().map(|p| p["port"].as_u64()).collect();
    let port = ports(object).values().next().copied();
    check(service_ports == [port], "its Service has another port than its pods".to_owned());
    let line = |at| {
        let (service, port) = (service.name(), port.unwrap_or(0));
        format!("{name}-{at}.{service}.default.svc.cluster.local:{port}")
    };
    let expected: Vec<String> = (0..replicas).map(line).collect();
    check(hosts.lines().eq(expected.iter()), format!("the hosts are {hosts:?}, not {expected:?}"));
    if let Some(directory) = options.get("--snapshots") {
        let volume = mounted(container, directory).and_then(|(mount, _)| volume(object, mount));
        let kept = volume.is_some_and(|volume| volume.get("persistentVolumeClaim").is_some());
        check(kept, format!("{directory} is gone with its pod"));
        // Kubernetes waits for up to five minutes before it starts again what has failed.
        let patient = option("--connect-max").parse::<u64>().is_ok_and(|seconds| seconds > 300);
        check(patient, "processes do not wait as long as Kubernetes may".to_owned());
    }
    if let Some(url) = options.get("--remote") {
        check_sidecar(object, container, url, check);
    }
}

/// A pipeline and the server beside it have the same socket.
fn check_sidecar(
    object: &Object,
    container: &Value,
    url: &str,
    check: &mut impl FnMut(bool, String),
) {
    const TARIFF: FunctionType<i32> = FunctionType::new("phones/tariff");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let functions: Functions<TypedValue> = Functions::new().remote(TARIFF, Endpoint::at(url));
    let checked = functions.runtime(runtime.handle().clone()).check();
    check(checked.is_ok(), format!("the URL is no endpoint's: {checked:?}"));
    let path = url.strip_prefix("http+unix://").unwrap_or_default();
    let socket = path.find(".sock").map_or("", |at| &path[..at + ".sock".len()]);
    let server = list(object.get("/spec/template/spec/initContainers")).first();
    let Some(server) = server else {
        return check(false, "there is no server beside it".to_owned());
    };
    check(field(server, "restartPolicy") == "Always", "the server is waited for".to_owned());
    let listens = list(&server["env"]).iter().find(|env| field(env, "name") == "LISTEN");
    let listens = listens.map_or("", |env| field(env, "value"));
    check(
        listens == socket,
        format!("the server listens at \"{listens}\", and \"{socket}\" is called"),
    );
    let (here, there) = (mounted(container, socket), mounted(server, socket));
    check(here.is_some() && here == there, "they do not share the socket's directory".to_owned());
    let shared = here.and_then(|(mount, _)| volume(object, mount));
    let shared = shared.is_some_and(|volume| volume.get("emptyDir").is_some());
    check(shared, "the socket's directory is not of the pod".to_owned());
}

fn problems_of(file: &str, text: &str) -> Vec<String> {
    match parse(file, text) {
        Ok(objects) => problems(&objects),
        Err(wrong) => vec![wrong],
    }
}

#[test]
fn manifests_fit_together() {
    let mut there: Vec<_> = std::fs::read_dir(root("examples/kubernetes"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    there.sort();
    assert_eq!(there, FILES);
    for file in FILES {
        let found = problems_of(file, &text(file));
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}

#[test]
fn what_does_not_fit_is_found() {
    let mut missed = Vec::new();
    for (file, from, to, said) in [
        ("functions.yaml", "  name: tariff", "   name: tariff", "functions.yaml: "),
        (
            "functions.yaml",
            "  name: tariff\n",
            "  name: tariff\n  name: tariff\n",
            "duplicated key",
        ),
        ("functions.yaml", "apiVersion: policy/v1\n", "", "it has no apiVersion"),
        ("functions.yaml", "kind: Service\n", "kind: Sevrice\n", "what this is checked for"),
        ("functions.yaml", "name: tariff", "name: Tariff", "no name of a host"),
        ("functions.yaml", "readinessProbe", "readinesProbe", "unknown field \"readinesProbe\""),
        (
            "functions.yaml",
            "    app.kubernetes.io/name: tariff\n  ports",
            "    app: x\n  ports",
            "it selects no pods",
        ),
        (
            "functions.yaml",
            "    matchLabels:\n      app.kubernetes.io/name: tariff\n  strategy",
            "    matchLabels:\n      app.kubernetes.io/name: x\n  strategy",
            "its selector does not select its pods",
        ),
        ("functions.yaml", "targetPort: http", "targetPort: web", "its pods have no port \"web\""),
        (
            "functions.yaml",
            "              port: http\n",
            "              port: web\n",
            "which is no port of",
        ),
        ("functions.yaml", "path: /healthz", "path: /health", "of which the page says nothing"),
        ("functions.yaml", "registry.example/tariff:1", "tariff:1", "is somebody's"),
        (
            "functions.yaml",
            "kind: Deployment\n    name: tariff",
            "kind: Deployment\n    name: x",
            "what it scales is not there",
        ),
        ("functions.yaml", "  strategy:", "  replicas: 2\n  strategy:", "says itself how many"),
        ("pipeline.yaml", "  replicas: 3", "  replicas: 2", "2 pods, and -n 3"),
        ("pipeline.yaml", "    cascades-2.cascades", "    cascades-3.cascades", "the hosts are"),
        ("pipeline.yaml", "svc.cluster.local:2101", "svc.cluster.local:2102", "the hosts are"),
        ("pipeline.yaml", "      port: 2101", "      port: 2102", "another port than its pods"),
        ("pipeline.yaml", "  clusterIP: None\n", "", "gives pods no names"),
        (
            "pipeline.yaml",
            "publishNotReadyAddresses: true",
            "publishNotReadyAddresses: false",
            "before they are ready",
        ),
        ("pipeline.yaml", "serviceName: cascades", "serviceName: x", "its Service is not there"),
        ("pipeline.yaml", "name: PROCESS", "name: INDEX", "there is no variable \"PROCESS\""),
        (
            "pipeline.yaml",
            "metadata.labels['apps.kubernetes.io/pod-index']",
            "metadata.uid",
            "not the number of the pod",
        ),
        ("pipeline.yaml", "            - \"3\"", "            - 3", "is no text"),
        ("pipeline.yaml", "/etc/checkpointed/hosts", "/etc/hosts", "the file of -h is not there"),
        (
            "pipeline.yaml",
            "            name: cascades-hosts",
            "            name: x",
            "which is not there",
        ),
        ("pipeline.yaml", "claimName: cascades-snapshots", "claimName: x", "which is not there"),
        ("pipeline.yaml", "  name: cascades-hosts\ndata", "  name: x\ndata", "nobody uses it"),
        (
            "pipeline.yaml",
            "            - name: snapshots\n",
            "            - name: x\n",
            "which is no volume",
        ),
        (
            "pipeline.yaml",
            "            - name: snapshots\n",
            "            - name: x\n",
            "nobody mounts \"snapshots\"",
        ),
        (
            "pipeline.yaml",
            "- ReadWriteMany",
            "- ReadWriteOnce",
            "not all processes can write to it",
        ),
        (
            "pipeline.yaml",
            "            - /var/lib/checkpointed\n",
            "            - /tmp\n",
            "is gone with its pod",
        ),
        ("pipeline.yaml", "\"600\"", "\"60\"", "do not wait as long as Kubernetes may"),
        ("pipeline.yaml", "Parallel", "OrderedReady", "it does not start together"),
        ("pipeline.yaml", "OnDelete", "RollingUpdate", "it is not replaced together"),
        ("pipeline.yaml", "restartPolicy: Always", "restartPolicy: Never", "it does not come back"),
        (
            "pipeline.yaml",
            "          port: timely",
            "          port: http",
            "nobody can reach the port",
        ),
        (
            "pipeline.yaml",
            "              app.kubernetes.io/name: cascades\n      ports",
            "              a: b\n      ports",
            "it lets others in",
        ),
        ("pipeline.yaml", "kind: NetworkPolicy", "kind: ConfigMap", "anybody can reach it"),
        ("sidecar.yaml", "tariff.sock/", "tariff.socket/", "the URL is no endpoint's"),
        (
            "sidecar.yaml",
            "value: /run/functions/tariff.sock",
            "value: /run/tariff.sock",
            "is called",
        ),
        (
            "sidecar.yaml",
            "              mountPath: /run/functions",
            "              mountPath: /run",
            "no wrong",
        ),
        ("sidecar.yaml", "emptyDir: {}", "configMap: {name: bills-hosts}", "is not of the pod"),
        ("sidecar.yaml", "          restartPolicy: Always\n", "", "the server is waited for"),
    ] {
        let text = text(file);
        assert!(text.contains(from), "{file} has no {from:?}");
        let found = problems_of(file, &text.replace(from, to));
        // Where both are changed alike, they still fit.
        let wrong = said != "no wrong";
        if wrong != found.iter().any(|found| found.contains(said)) || !wrong && !found.is_empty() {
            missed.push(format!("{file}, {to:?}: {found:?}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// Whoever reads where something is wrong can go there.
#[test]
fn what_is_no_yaml_is_found_with_its_line() {
    for (text, said) in [
        ("a: b\nc: [d\ne: f\n", "line 3"),
        ("a: b\na: c\n", "line 2"),
        ("a:\n  ? [b]\n  : c\n", "line 2"),
    ] {
        let wrong = parse("x.yaml", text).map(drop).unwrap_err();
        assert!(wrong.starts_with("x.yaml: ") && wrong.contains(said), "{text:?}: {wrong}");
    }
}

#[test]
fn what_the_page_names_is_in_the_manifests() {
    let page = page();
    let all: String = FILES.map(text).concat();
    // Services, by the URLs that lead to them.
    let functions = parse("functions.yaml", &text("functions.yaml")).unwrap();
    let service = functions.iter().find(|o| o.kind() == "Service").unwrap();
    let port = &list(service.get("/spec/ports"))[0]["port"];
    let expected = format!("http://{}.default.svc:{port}/", service.name());
    for (who, said) in [("the page", &page), ("the manifests", &all)] {
        let mut urls = said.match_indices("http://").filter_map(|(at, _)| {
            said[at..].split(['"', '`', ' ', '\n']).next().filter(|url| url.contains(".svc"))
        });
        let other = urls.clone().find(|url| !url.starts_with(&expected));
        assert!(urls.next().is_some() && other.is_none(), "{who}: {other:?}, and not {expected}");
    }
    // The server ends before it is killed.
    let seconds = |setting: &str| -> u64 {
        let (_, rest) = page.split_once(&format!(".{setting}(Duration::from_secs(")).unwrap();
        rest.split(')').next().unwrap().parse().unwrap()
    };
    let (notice, grace) = (seconds("notice"), seconds("grace"));
    let pod = "/spec/template/spec";
    let period =
        functions[0].get(&format!("{pod}/terminationGracePeriodSeconds")).as_u64().unwrap();
    assert!(period > notice + grace, "{period} s, and not more than {notice} s and {grace} s");
    // Who goes by the probe hears of it within the notice.
    let probe = functions[0].get(&format!("{pod}/containers/0/readinessProbe"));
    let hears =
        probe["periodSeconds"].as_u64().unwrap() * probe["failureThreshold"].as_u64().unwrap();
    assert!(hears < notice, "{hears} s, and not less than {notice} s");
    // Files, names and what commands say.
    for file in FILES {
        assert!(page.contains(&format!("(https://github.com/timely-statefun/timely-statefun/blob/main/examples/kubernetes/{file})")), "{file}");
    }
    for said in ["app.kubernetes.io/name=cascades", "statefulset cascades", "--connect-max 600"] {
        assert!(page.contains(said), "the page does not say {said}");
    }
    for name in [
        "/run/functions/tariff.sock/{function.name}",
        "cascades-0.cascades.default.svc.cluster.local",
    ] {
        assert!(page.contains(name) && all.contains(name), "{name}");
    }
    // What it shows in YAML is YAML, and is of fields that there are.
    let samples: Vec<&str> =
        page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(!samples.is_empty(), "the page has no YAML");
    for sample in samples {
        let objects = parse("docs/deploying-functions.md", sample).unwrap();
        let mut names = BTreeSet::new();
        objects.iter().for_each(|object| fields(&object.value, &mut names));
        let of_pods = "envFrom secretRef";
        let known: BTreeSet<_> = FIELDS.split_whitespace().chain(of_pods.split(' ')).collect();
        assert!(names.iter().all(|name| known.contains(name.as_str())), "{names:?}");
    }
}

/// The table of limits has the defaults that there are.
#[test]
fn the_page_has_the_defaults() {
    let page = page();
    let endpoint = format!("{:?}", Endpoint::at("http://host/"));
    let server = format!("{:?}", Server::new(Nobody));
    let row = |option: &str, shown: &str| {
        let row = page.lines().find(|line| line.contains(&format!("| `{option}` | {shown} |")));
        assert!(row.is_some(), "the page has no row for {option} with {shown}");
    };
    for (option, found, shown) in [
        ("batch_messages_max", "1000", "1,000"),
        ("batch_bytes_max", "8388608", "8 MiB"),
        ("in_flight_max", "256", "256"),
        ("connect_timeout", "20s", "20 s"),
        ("write_timeout", "10s", "10 s"),
        ("read_timeout", "10s", "10 s"),
        ("call_timeout", "120s", "2 min"),
        ("connection_idle", "60s", "60 s"),
        ("response_bytes_max", "33554432", "32 MiB"),
        ("effects_max", "100000", "100,000"),
    ] {
        assert!(endpoint.contains(&format!("{option}: {found},")), "{option}: {endpoint}");
        row(option, shown);
    }
    for (option, found, shown) in [
        ("body_bytes_max", "33554432", "32 MiB"),
        ("read_timeout", "10s", "10 s"),
        ("body_timeout", "120s", "2 min"),
        ("connections_max", "4096", "4,096"),
        ("streams_max", "256", "256"),
        ("connection_idle", "75s", "75 s"),
    ] {
        assert!(server.contains(&format!("{option}: {found}")), "{option}: {server}");
        row(option, shown);
    }
    let ServedOptions { under_way_max, listed_max, .. } = ServedOptions::default();
    assert_eq!((under_way_max, listed_max), (4096, 100_000));
    row("under_way_max", "4,096");
    row("listed_max", "100,000");
}

struct Nobody;

impl RequestReply for Nobody {
    fn answer(&self, _: bytes::Bytes) -> Answer {
        Box::pin(std::future::pending())
    }
}

/// An example that was built.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let program = profile.join("examples").join(name);
    assert!(
        program.exists(),
        "{} is not built: run `cargo build --example {name}` first",
        program.display()
    );
    program
}

/// The arguments of the program that a StatefulSet starts, which has the name of its container.
fn arguments(file: &str) -> (String, u64, Value, Vec<String>) {
    let objects = parse(file, &text(file)).unwrap();
    let set = objects.iter().find(|object| object.kind() == "StatefulSet").unwrap();
    let container = list(set.get("/spec/template/spec/containers"))[0].clone();
    let args =
        list(&container["args"]).iter().map(|arg| arg.as_str().unwrap().to_owned()).collect();
    let replicas = set.get("/spec/replicas").as_u64().unwrap();
    (field(&container, "name").to_owned(), replicas, container, args)
}

#[test]
fn programs_know_their_options() {
    for file in ["pipeline.yaml", "sidecar.yaml"] {
        let (name, _, _, args) = arguments(file);
        let understood = |args: &[String]| {
            // Options are read before help is given.
            let output = Command::new(program(&name)).args(args).arg("--help").output().unwrap();
            output.status.success()
        };
        assert!(understood(&args), "{name} {args:?}");
        let mut other = args.clone();
        other.push("--no-such-option".to_owned());
        assert!(!understood(&other), "{name} understands everything");
    }
}

/// The whole pipeline as its manifest starts it, in other directories and at other addresses.
#[test]
fn the_pipeline_runs_as_its_manifest_says() {
    let (name, replicas, container, args) = arguments("pipeline.yaml");
    let directory = std::env::temp_dir().join(format!("deployment-{}", std::process::id()));
    let inside = |volume: &str| directory.join(volume);
    list(&container["volumeMounts"]).iter().for_each(|mount| {
        std::fs::create_dir_all(inside(field(mount, "name"))).unwrap();
    });
    let calls = std::fs::read_to_string(root("examples/data/calls.txt")).unwrap();
    let input = directory.join("calls.txt");
    let some: String = calls.split_inclusive('\n').take(2_000).collect();
    std::fs::write(&input, some).unwrap();
    let outcomes = cluster::run_command(replicas as usize, |process, addresses| {
        let mut command = Command::new(program(&name));
        for arg in &args {
            if let Some((volume, rest)) = mounted(&container, arg) {
                let path = inside(volume).join(rest);
                if rest == "hosts" && process == 0 {
                    std::fs::write(&path, addresses.join("\n")).unwrap();
                }
                command.arg(path);
            } else if arg.starts_with("/usr/share/") {
                command.arg(&input);
            } else {
                command.arg(arg.replace("$(PROCESS)", &process.to_string()));
            }
        }
        command
    });
    let manifests =
        std::fs::read_dir(inside("snapshots").join("manifest")).map_or(0, Iterator::count);
    let _ = std::fs::remove_dir_all(&directory);
    outcomes.iter().for_each(|outcome| assert!(outcome.success, "{}", outcome.output));
    assert!(outcomes[0].output.contains("calls read"), "{}", outcomes[0].output);
    assert!(manifests > 0, "there are no snapshots");
}
