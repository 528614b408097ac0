//! A real Kafka broker for the tests of one process: started with the first that asks, and ended with the process, however that ends.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::TcpListener;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use loadline::log::kafka::{KafkaLog, Options, topics};
use loadline::log::{LogError, Partitions, Polled};
use loadline::runtime::clock::Stopwatch;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::{ClientContext, Offset as At, TopicPartitionList};

/// How long a broker may take to start on a busy machine.
const START: Duration = Duration::from_secs(300);

/// A broker.
pub(crate) struct Broker {
    /// Where it listens.
    pub(crate) address: String,
    /// It ends when this does: its standard input is ours.
    child: Child,
    /// Its own, and its controller's.
    ports: [u16; 2],
    settings: Vec<String>,
    directory: PathBuf,
    /// What a client needs to be let in.
    client: BTreeMap<String, String>,
}

/// The broker of this process.
pub(crate) fn broker() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    BROKER.get_or_init(|| Broker::start(&[], &[]))
}

/// A port that nobody listens at now, below those that the system gives to whoever connects: one of these could be another's when the broker comes to it.
pub(crate) fn free_port() -> u16 {
    let mut ports = std::iter::repeat_with(|| 10_000 + (std::process::id().wrapping_mul(101).wrapping_add(next()) % 22_000) as u16);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// What fetches and starts a server, or what else the tests need from elsewhere.
pub(crate) fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/env").join(name)
}

/// What this script prints of what it installs: where it is. It is fetched where it is missing, however long that takes.
pub(crate) fn installed(name: &str) -> String {
    static INSTALLED: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if !installed.contains_key(name) {
        let output = Command::new(script(name)).arg("install").stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "{name} could not install what it is for: see above");
        installed.insert(name.to_owned(), String::from_utf8(output.stdout).unwrap().trim().to_owned());
    }
    installed[name].clone()
}

/// Makes `path` one of Kafka's own tools, as its scripts in `bin/` are.
pub(crate) fn tool_at(path: &Path, class: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, format!("#!/bin/sh\nexec '{}' tool {class} \"$@\"\n", script("kafka.sh").display())).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// The answer of a log, which is asked again as long as it says to.
pub(crate) fn answered<T>(mut ask: impl FnMut() -> Result<T, LogError>) -> T {
    let started = Stopwatch::start();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(error) => assert!(matches!(error, LogError::Retry { .. }) && started.elapsed() < START, "{error:?}"),
        }
    }
}

/// What a poll brings: nothing where the log says that it is to be tried again.
pub(crate) fn brought(polled: Result<Vec<Polled>, LogError>) -> Vec<Polled> {
    match polled {
        Ok(polled) => polled,
        Err(LogError::Retry { .. }) => Vec::new(),
        Err(error) => panic!("{error:?}"),
    }
}

/// Makes the topics of these options.
pub(crate) fn makes(options: &Options) {
    answered(|| topics::apply(options, false));
}

fn next() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::SeqCst)
}

impl Broker {
    /// Another broker, with settings of its own (`NAME=VALUE`), which lets in who has these settings of the client.
    pub(crate) fn start(settings: &[&str], client: &[(&str, &str)]) -> Broker {
        Broker::start_at([free_port(), free_port()], settings, client)
    }

    /// Three brokers, of which the first is the controller and has the addresses of all; each record is on all of them, and acknowledged when two have it.
    pub(crate) fn cluster() -> [Broker; 3] {
        let ports = [[free_port(), free_port()], [free_port(), free_port()], [free_port(), free_port()]];
        let voters = format!("controller.quorum.voters=1@127.0.0.1:{}", ports[0][1]);
        let kept =
            ["offsets.topic.replication.factor=3", "transaction.state.log.replication.factor=3", "transaction.state.log.min.isr=2", "min.insync.replicas=2"];
        let mut first = Broker::start_at(ports[0], &kept, &[]);
        let other = |number: usize| {
            let (id, listens) = (format!("node.id={}", number + 1), format!("listeners=PLAINTEXT://127.0.0.1:{}", ports[number][0]));
            Broker::start_at(ports[number], &[&kept[..], &["process.roles=broker", &id, &voters, &listens]].concat(), &[])
        };
        let (second, third) = (other(1), other(2));
        first.address = ports.map(|[port, _]| format!("127.0.0.1:{port}")).join(",");
        [first, second, third]
    }

    /// On how many brokers a record can be.
    pub(crate) fn replicas(&self) -> u32 {
        u32::try_from(self.address.split(',').count()).unwrap()
    }

    /// The same, at these ports: its own, and its controller's.
    pub(crate) fn start_at(ports: [u16; 2], settings: &[&str], client: &[(&str, &str)]) -> Broker {
        // As Loadline does, before a client is made here.
        openssl::init();
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("kafka-{}-{}", std::process::id(), next()));
        drop(std::fs::remove_dir_all(&directory));
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect::<Vec<_>>();
        let child = Broker::spawn(ports, &directory, &settings);
        let client = client.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut broker = Broker { address: format!("127.0.0.1:{}", ports[0]), ports, settings, child, directory, client };
        broker.is_ready();
        broker
    }

    /// Another broker, which asks for users with their passwords ([`Broker::password`]) and allows nobody anything but `admin`, as whom the tests reach it.
    pub(crate) fn with_users(users: &[&str]) -> Broker {
        let login = format!("listener.name.plaintext.plain.sasl.jaas.config={}", Broker::login(users));
        let settings = [
            "listener.security.protocol.map=PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name=PLAINTEXT",
            "sasl.mechanism.inter.broker.protocol=PLAIN",
            "sasl.enabled.mechanisms=PLAIN",
            &login,
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users=User:admin;User:ANONYMOUS",
        ];
        let password = Broker::password("admin");
        let admin = [("security.protocol", "SASL_PLAINTEXT"), ("sasl.mechanism", "PLAIN"), ("sasl.username", "admin"), ("sasl.password", &password)];
        Broker::start(&settings, &admin)
    }

    /// As [`Broker::with_users`], over TLS; its users log in by SCRAM, as the tests do, or with their passwords as they are.
    pub(crate) fn with_tls(users: &[&str]) -> Broker {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("kafka-tls-{}-{}", std::process::id(), next()));
        let [keys, authority] = Broker::certificate(&folder);
        let login = format!("listener.name.plaintext.plain.sasl.jaas.config={}", Broker::login(users));
        let (keys, trusted) = (format!("ssl.keystore.location={}", keys.display()), format!("ssl.truststore.location={}", authority.display()));
        let scram: Vec<String> =
            users.iter().chain(&["admin"]).map(|user| format!("add-scram=SCRAM-SHA-512=[name={user},password={}]", Broker::password(user))).collect();
        let settings = [
            "listener.security.protocol.map=PLAINTEXT:SASL_SSL,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name=PLAINTEXT",
            "sasl.mechanism.inter.broker.protocol=PLAIN",
            "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512",
            "listener.name.plaintext.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;",
            &login,
            "ssl.keystore.type=PKCS12",
            "ssl.keystore.password=loadline",
            "ssl.truststore.type=PEM",
            &keys,
            &trusted,
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users=User:admin;User:ANONYMOUS",
        ];
        let settings: Vec<&str> = settings.into_iter().chain(scram.iter().map(String::as_str)).collect();
        let (password, trusted) = (Broker::password("admin"), authority.to_str().unwrap().to_owned());
        let admin = [
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", "admin"),
            ("sasl.password", &password),
            ("ssl.ca.location", &trusted),
        ];
        Broker::start(&settings, &admin)
    }

    /// A key of a broker on this machine with its certificate, which it signs itself; and the certificate alone, for who is to trust it.
    pub(crate) fn certificate(folder: &Path) -> [PathBuf; 2] {
        drop(std::fs::remove_dir_all(folder));
        std::fs::create_dir_all(folder).unwrap();
        let [keys, authority] = ["broker.p12", "broker.pem"].map(|name| folder.join(name));
        let store = |command: &str, arguments: &[&str]| {
            let mut keytool = Command::new("keytool");
            keytool.args([command, "-alias", "broker", "-storetype", "PKCS12", "-storepass", "loadline", "-keystore"]).arg(&keys).args(arguments);
            let output = keytool.output().unwrap();
            assert!(output.status.success(), "{output:?}");
        };
        let here = ["-keyalg", "EC", "-groupname", "secp256r1", "-dname", "CN=127.0.0.1", "-ext", "san=ip:127.0.0.1", "-ext", "bc=ca:true"];
        store("-genkeypair", &[&here[..], &["-validity", "3650"]].concat());
        store("-exportcert", &["-rfc", "-file", authority.to_str().unwrap()]);
        [keys, authority]
    }

    fn login(users: &[&str]) -> String {
        let users: Vec<String> = users.iter().chain(&["admin"]).map(|user| format!(" user_{user}=\"{}\"", Broker::password(user))).collect();
        let admin = Broker::password("admin");
        format!("org.apache.kafka.common.security.plain.PlainLoginModule required username=\"admin\" password=\"{admin}\"{};", users.concat())
    }

    /// The password of a user.
    pub(crate) fn password(user: &str) -> String {
        format!("{user}s-word")
    }

    /// Settings of a client for a file of `--kafka-config`, as this user with this password.
    pub(crate) fn properties(&self, user: &str, password: &str) -> String {
        let mut text = format!("# who we are\nbootstrap.servers = {}\nsasl.username={user}\nsasl.password={password}\n", self.address);
        for (name, value) in self.client.iter().filter(|(name, _)| !is_of_user(name)) {
            writeln!(text, "{name}={value}").unwrap();
        }
        text
    }

    /// Runs `kafka-acls.sh` of Apache Kafka with these arguments, as `admin`.
    pub(crate) fn acls(&self, arguments: &[&str]) {
        self.tool("org.apache.kafka.tools.AclCommand", arguments);
    }

    /// Runs `kafka-configs.sh` likewise; what it prints.
    pub(crate) fn configs(&self, arguments: &[&str]) -> String {
        self.tool("kafka.admin.ConfigCommand", arguments)
    }

    fn tool(&self, class: &str, arguments: &[&str]) -> String {
        let java = self.directory.join(format!("admin-{}.properties", next()));
        let trust = |authority: &String| format!("ssl.truststore.type=PEM\nssl.truststore.location={authority}\n");
        let (how, trust) = (&self.client["security.protocol"], self.client.get("ssl.ca.location").map(trust).unwrap_or_default());
        std::fs::write(&java, format!("security.protocol={how}\n{trust}sasl.mechanism=PLAIN\nsasl.jaas.config={}\n", Broker::login(&[]))).unwrap();
        let mut command = Command::new(script("kafka.sh"));
        command.args(["tool", class, "--bootstrap-server", &self.address, "--command-config"]).arg(java).args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn spawn(ports: [u16; 2], directory: &Path, settings: &[String]) -> Child {
        installed("kafka.sh");
        let mut command = Command::new(script("kafka.sh"));
        command.arg("run").args(ports.map(|port| port.to_string())).arg(directory).args(settings);
        command.stdin(Stdio::piped()).spawn().unwrap()
    }

    fn is_ready(&mut self) {
        let started = Stopwatch::start();
        while let Err(error) = topics::apply(&self.options("ready."), false) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the broker ended, {ended:?}: see above, and {}/broker.log", self.directory.display());
            assert!(started.elapsed() < START, "the broker is not ready: {error}; see {}/broker.log", self.directory.display());
        }
    }

    /// `kill -9` of the broker; [`Broker::start_again`] brings it back, with what was on its disk.
    pub(crate) fn kill(&mut self) {
        self.signal(rustix::process::Signal::KILL);
        self.child.wait().unwrap();
    }

    /// It takes connections, and answers nothing any more. Only [`Broker::kill`] ends it.
    #[allow(dead_code, reason = "not every test program needs it")]
    pub(crate) fn stand_still(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let script = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{script}/task/{script}/children")).unwrap();
        let is_java = |pid: &&str| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "java");
        let java = children.split_whitespace().find(is_java).unwrap_or_else(|| panic!("no broker among {children}"));
        let pid = rustix::process::Pid::from_raw(java.parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Its controller hears of it only so often from now on, and leaves it out of the cluster for the last part of that time.
    #[allow(dead_code, reason = "not every test program needs it")]
    pub(crate) fn is_seldom_heard_of(&mut self, every_ms: u64, left_out_ms: u64) {
        self.set(&format!("broker.session.timeout.ms={}", every_ms - left_out_ms));
        self.set(&format!("broker.heartbeat.interval.ms={every_ms}"));
        self.kill();
        self.start_again();
    }

    /// As often as others again.
    #[allow(dead_code, reason = "not every test program needs it")]
    pub(crate) fn is_heard_of(&mut self) {
        self.set("broker.session.timeout.ms=4000");
        self.set("broker.heartbeat.interval.ms=500");
        self.kill();
        self.start_again();
    }

    /// How often its controller left it out of the cluster.
    #[allow(dead_code, reason = "not every test program needs it")]
    pub(crate) fn times_left_out(&self) -> usize {
        std::fs::read_to_string(self.directory.join("broker.log")).unwrap().matches("Fencing broker 1 ").count()
    }

    /// Starts it at the same place.
    pub(crate) fn start_again(&mut self) {
        self.child = Broker::spawn(self.ports, &self.directory, &self.settings);
        self.is_ready();
    }

    /// One more setting, or another value of one, from its next start on.
    pub(crate) fn set(&self, setting: &str) {
        let file = self.directory.join("broker.properties");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{text}{setting}\n")).unwrap();
    }

    /// Lets a topic have so many partitions.
    pub(crate) fn grow(&self, topic: &str, partitions: usize) {
        let grown = wait_for(self.admin().create_partitions([&NewPartitions::new(topic, partitions)], &AdminOptions::new())).unwrap();
        grown.into_iter().for_each(|result| drop(result.unwrap()));
        let started = Stopwatch::start();
        while self.leaders(topic).iter().filter(|leader| **leader >= 0).count() < partitions {
            assert!(started.elapsed() < START, "{topic} never has {partitions} partitions");
        }
    }

    /// The broker that leads each partition of a topic; a negative number where none does.
    pub(crate) fn leaders(&self, topic: &str) -> Vec<i32> {
        let metadata = self.admin().inner().fetch_metadata(Some(topic), START).unwrap();
        metadata.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions).map(rdkafka::metadata::MetadataPartition::leader).collect()
    }

    /// How to reach it. A topic has one partition. A member stays one while the machine stands still for some seconds, and hears as soon as others do what
    /// changes in its group.
    pub(crate) fn options(&self, prefix: &str) -> Options {
        let mut settings = self.client.clone();
        settings.insert("heartbeat.interval.ms".to_owned(), "500".to_owned());
        Options {
            prefix: prefix.to_owned(),
            partitions: Some(Partitions::default()),
            replicas: Some(self.replicas()),
            settings,
            session_timeout: Duration::from_secs(20),
            ..Options::new(self.address.clone())
        }
    }

    /// The same for who gives up soon: for what waits for that.
    pub(crate) fn impatient(&self, prefix: &str) -> Options {
        Options { transaction_timeout: Duration::from_secs(4), patience: Duration::from_secs(10), ..self.options(prefix) }
    }

    /// A prefix that nobody else uses.
    pub(crate) fn prefix() -> String {
        format!("test-{}.", next())
    }

    /// The log, as soon as the broker shows all its topics.
    pub(crate) fn open(options: &Options) -> KafkaLog {
        let started = Stopwatch::start();
        loop {
            match KafkaLog::open(options.clone()) {
                Ok(log) => return log,
                Err(error) => assert!(started.elapsed() < START, "{error}"),
            }
        }
    }

    pub(crate) fn admin(&self) -> AdminClient<DefaultClientContext> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address);
        for (name, value) in &self.client {
            config.set(name, value);
        }
        config.create().unwrap()
    }

    /// A group goes on to this offset of a topic's first partition, as if it had read what is before it.
    pub(crate) fn commit(&self, group: &str, topic: &str, offset: i64) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address).set("group.id", group);
        for (name, value) in &self.client {
            config.set(name, value);
        }
        let member: BaseConsumer = config.create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, At::Offset(offset)).unwrap();
        member.commit(&list, CommitMode::Sync).unwrap();
    }

    /// What the records of a topic take on the disk.
    pub(crate) fn bytes_of(&self, topic: &str) -> u64 {
        let of_topic = |folder: &std::path::PathBuf| folder.file_name().and_then(|name| name.to_str()?.rsplit_once('-')).is_some_and(|(name, _)| name == topic);
        let folders = std::fs::read_dir(self.directory.join("data")).unwrap().map(|entry| entry.unwrap().path()).filter(of_topic);
        let files = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path());
        files.filter(|file| file.extension().is_some_and(|extension| extension == "log")).map(|file| std::fs::metadata(file).unwrap().len()).sum()
    }

    /// Deletes the records of a topic's partition before an offset.
    pub(crate) fn delete_records(&self, topic: &str, partition: i32, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, At::Offset(before)).unwrap();
        let deleted = wait_for(self.admin().delete_records(&list, &AdminOptions::new())).unwrap();
        deleted.elements().iter().for_each(|element| element.error().unwrap());
    }

    /// Begins a transaction with one record, and leaves it open. It ends by itself only long after any test.
    pub(crate) fn leaves_open(&self, id: &str, topic: &str, value: &str) -> BaseProducer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address).set("transactional.id", id).set("transaction.timeout.ms", "600000");
        let producer: BaseProducer = config.create().unwrap();
        producer.init_transactions(START).unwrap();
        producer.begin_transaction().unwrap();
        let record: BaseRecord<'_, (), str> = BaseRecord::to(topic).partition(0).payload(value);
        producer.send(record).unwrap_or_else(|(error, _)| panic!("{error}"));
        producer.flush(START).unwrap();
        producer
    }

    /// A topic with these settings takes no larger records from now on.
    pub(crate) fn shrinks(&self, topic: &str, settings: &[(&str, &str)], bytes: usize) {
        let largest = bytes.to_string();
        let of_topic = AlterConfig::new(ResourceSpecifier::Topic(topic)).set("max.message.bytes", &largest);
        let altered = settings.iter().fold(of_topic, |altered, (name, value)| altered.set(name, value));
        wait_for(self.admin().alter_configs([&altered], &AdminOptions::new())).unwrap().into_iter().for_each(|result| drop(result.unwrap()));
        // What is aborted is read by nobody.
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address).set("transactional.id", format!("{topic}.shrinks"));
        let producer: BaseProducer<Told> = config.create_with_context(Told::default()).unwrap();
        producer.init_transactions(START).unwrap();
        let (too_large, started) = (vec![0; bytes + 1], Stopwatch::start());
        loop {
            producer.begin_transaction().unwrap();
            producer.send(BaseRecord::<str, _>::to(topic).partition(0).key("too large").payload(&too_large)).unwrap_or_else(|(error, _)| panic!("{error}"));
            producer.flush(START).unwrap();
            let told = producer.context().0.lock().unwrap().take().unwrap();
            producer.abort_transaction(START).unwrap();
            if told == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
                return;
            }
            assert!(started.elapsed() < START, "{topic} takes larger records still");
        }
    }

    /// Other bytes are where these stood in a partition: of each the last bit.
    pub(crate) fn damage(&self, topic: &str, partition: u32, what: &[u8]) {
        let path = self.directory.join(format!("data/{topic}-{partition}/00000000000000000000.log"));
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(what.len()).position(|window| window == what).unwrap();
        bytes[at..at + what.len()].iter_mut().for_each(|byte| *byte ^= 1);
        // In place: the broker has the file open.
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&bytes[at..at + what.len()], at as u64).unwrap();
    }

    /// A topic as somebody creates it by hand; it is there when the broker shows it, a moment after its controller.
    pub(crate) fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let new = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let new = settings.iter().fold(new, |new, (name, value)| new.set(name, value));
        let admin = self.admin();
        wait_for(admin.create_topics([&new], &AdminOptions::new())).unwrap().into_iter().for_each(|result| drop(result.unwrap()));
        let started = Stopwatch::start();
        while !admin.inner().fetch_metadata(None, START).unwrap().topics().iter().any(|topic| topic.name() == name) {
            assert!(started.elapsed() < START, "{name} is never shown");
        }
    }

    /// Deletes groups and topics, and waits until the broker shows none of these topics.
    pub(crate) fn delete(&self, groups: &[String], topics: &[String]) {
        fn names(names: &[String]) -> Vec<&str> {
            names.iter().map(String::as_str).collect()
        }
        let (admin, options) = (self.admin(), AdminOptions::new());
        let started = Stopwatch::start();
        // One whose member had no time to leave has it until its session is over.
        while !groups.is_empty()
            && let Some(error) = wait_for(admin.delete_groups(&names(groups), &options)).unwrap().into_iter().find_map(Result::err)
        {
            if error.1 == RDKafkaErrorCode::GroupIdNotFound {
                break; // with the last of its positions
            }
            assert!(started.elapsed() < START && error.1 == RDKafkaErrorCode::NonEmptyGroup, "{error:?}");
        }
        wait_for(admin.delete_topics(&names(topics), &options)).unwrap().into_iter().for_each(|result| drop(result.unwrap()));
        while admin.inner().fetch_metadata(None, START).unwrap().topics().iter().any(|topic| topics.iter().any(|gone| gone == topic.name())) {
            assert!(started.elapsed() < START, "{topics:?} are never gone");
        }
    }

    /// Why a user may not write a record to each of these topics; `None` where it was written.
    pub(crate) fn refuses(&self, user: &str, topics: &[String]) -> Vec<Option<String>> {
        let mut config = ClientConfig::new();
        for (name, value) in self.client.iter().filter(|(name, _)| !is_of_user(name)) {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.address).set("sasl.username", user).set("sasl.password", Broker::password(user));
        let producer: BaseProducer<Told> = config.create_with_context(Told::default()).unwrap();
        let told = topics.iter().map(|topic| {
            let record: BaseRecord<'_, (), str> = BaseRecord::to(topic).partition(0).payload("x");
            // What the client learnt of all topics before, it tells of this one at once.
            if let Err((error, _)) = producer.send(record) {
                return Some(error.rdkafka_error_code().unwrap());
            }
            producer.flush(START).unwrap();
            producer.context().0.lock().unwrap().take().unwrap()
        });
        told.map(|told| told.map(|code| format!("{code:?}"))).collect()
    }

    /// What this user is refused to read a topic with, where it is refused.
    pub(crate) fn refuses_to_show(&self, user: &str, prefix: &str, topic: &str) -> Option<String> {
        let mut config = ClientConfig::new();
        for (name, value) in self.client.iter().filter(|(name, _)| !is_of_user(name)) {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.address).set("sasl.username", user).set("sasl.password", Broker::password(user));
        // The group that every role may name.
        let reader: BaseConsumer =
            config.set("group.id", format!("{prefix}readers")).set("enable.partition.eof", "true").set("fetch.wait.max.ms", "20").create().unwrap();
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(&format!("{prefix}{topic}"), 0, At::Beginning).unwrap();
        reader.assign(&from).unwrap();
        match reader.poll(START) {
            None => panic!("{topic} answers {user} nothing"),
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => None,
            Some(Err(error)) => Some(format!("{:?}", error.rdkafka_error_code())),
        }
    }

    /// Begins to be the producer of these transactions.
    pub(crate) fn begin_as(&self, id: &str) {
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &self.address).set("transactional.id", id).create().unwrap();
        producer.init_transactions(START).unwrap();
    }

    /// Waits until no transaction is under way in the topics with this prefix: until readers of what is committed see as far as all others.
    pub(crate) fn settle(&self, prefix: &str) {
        let reader =
            |isolation| -> BaseConsumer { ClientConfig::new().set("bootstrap.servers", &self.address).set("isolation.level", isolation).create().unwrap() };
        let (mut all, mut committed) = (reader("read_uncommitted"), reader("read_committed"));
        let metadata = all.fetch_metadata(None, START).unwrap();
        for topic in metadata.topics().iter().filter(|topic| topic.name().starts_with(prefix)) {
            for partition in topic.partitions() {
                let end = |reader: &BaseConsumer| reader.fetch_watermarks(topic.name(), partition.id(), Duration::from_secs(10)).map(|range| range.1);
                let started = Stopwatch::start();
                loop {
                    match (end(&committed), end(&all)) {
                        (Ok(committed), Ok(all)) if committed == all => break,
                        (Ok(_), Ok(_)) => {}
                        // Who is not told now asks anew.
                        _ => (all, committed) = (reader("read_uncommitted"), reader("read_committed")),
                    }
                    assert!(started.elapsed() < START, "a transaction stays open in {}", topic.name());
                }
            }
        }
    }
}

/// Whether a setting of a client says who it is.
fn is_of_user(name: &str) -> bool {
    ["sasl.username", "sasl.password"].contains(&name)
}

/// What became of a record: delivered, or the code of its error.
#[derive(Default)]
struct Told(Mutex<Option<Option<RDKafkaErrorCode>>>);

impl ClientContext for Told {}

impl ProducerContext for Told {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        *self.0.lock().unwrap() = Some(result.as_ref().err().and_then(|(error, _)| error.rdkafka_error_code()));
    }
}

/// Waits for an answer of the admin client.
pub(crate) fn wait_for<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}
