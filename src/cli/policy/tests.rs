use clap::Parser;

use super::*;
use crate::wire::document::policies_in;

const PANE: Duration = Duration::from_secs(5);
const CHECKED: CheckFormat = CheckFormat::Text;
const TEXT: OutputArgs = OutputArgs { output: Format::Text, color: Colours::Never };
const JSON: OutputArgs = OutputArgs { output: Format::Json, color: Colours::Never };

const GOOD: &str = "\
apiVersion: loadline.dev/v1alpha1
kind: ScalingPolicy
metadata: { namespace: prod, name: api-server }
spec:
  target: { apiVersion: apps/v1, kind: Deployment, name: api-server }
  role: ApiServer
  replicas: { min: 3, max: 60 }
  metrics:
    - name: cpu
      track: { utilization: 70% }
";

fn source(name: &str, text: &str) -> Source {
    Source { name: name.to_owned(), text: Ok(text.to_owned()) }
}

fn checked(text: &str) -> Answer {
    check(&[source("policy.yaml", text)], CHECKED, false, false, PANE)
}

#[test]
fn a_good_policy_is_fine() {
    insta::assert_snapshot!(checked(GOOD).text);
    assert_eq!(checked(GOOD).code, FINE);
}

#[test]
fn slips_of_the_pen() {
    let answer = checked(
        "\
apiVersion: loadline.dev/v1alpha1
kind: ScalingPolicy
metadata: { namespace: prod, name: api-server }
spec:
  target: { apiVersion: apps/v1, kind: Deployment, name: api-server }
  role: ApiServr
  replicas: { min: 70, max: 60 }
  metrics:
    - name: cpu
      track: { utilisation: 70% }
      windw: 30s
    - name: response_time
      threshold:
        scaleOutAbove: 5m
        scaleInBelow: 120ms
    - name: memory
      track: { perReplica: 512m }
    - name: cpu
      track: { utilization: 0.7 }
  behavior:
    scaleIn: { stabilization: 300 }
  burst: { window: 10s, threshold: 200% }
",
    );
    insta::assert_snapshot!(answer.text);
    assert_eq!(answer.code, FAULTY);
}

#[test]
fn habits_from_the_horizontal_pod_autoscaler() {
    let answer = checked(
        "\
apiVersion: loadline.dev/v1alpha1
kind: ScalingPolicy
metadata: { name: api-server }
spec:
  scaleTargetRef: { apiVersion: apps/v1, kind: Deployment, name: api-server }
  minReplicas: 2
  maxReplicas: 10
  metrics:
    - type: Resource
      resource: { name: cpu, target: { type: Utilization, averageUtilization: 70 } }
  behavior:
    scaleDown:
      stabilizationWindowSeconds: 300
      policies: [{ type: Percent, value: 10, periodSeconds: 60 }]
",
    );
    insta::assert_snapshot!(answer.text);
    assert_eq!(answer.code, FAULTY);
}

/// Half translated, as after a first look at the errors; and the whole document of another, untranslated.
#[test]
fn habits_within_what_is_translated_already() {
    let answer = checked(
        "\
apiVersion: autoscaling/v2
kind: ScalingPolicy
metadata: { namespace: prod, name: api-server }
spec:
  target: { apiVersion: apps/v1, kind: Deployment, name: api-server }
  replicas: { minReplicas: 2, max: 10 }
  metrics:
    - name: cpu
      track: { type: Utilization, averageUtilization: 70 }
    - name: requests
      targetAverageValue: 100
    - name: queue_depth
      external: { metric: { name: queue_depth }, target: { type: AverageValue, averageValue: 30 } }
  behavior:
    scaleUp: { tolerance: 0.05 }
    scaleIn:
      stabilizationWindowSeconds: 300
      selectPolicy: Min
      tolerance: 0.05
      policies: [{ type: Percent, value: 10, periodSeconds: 60 }]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: { namespace: prod, name: api-server }
",
    );
    insta::assert_snapshot!(answer.text);
    assert_eq!(answer.code, FAULTY);
}

#[test]
fn habits_from_keda() {
    let answer = checked(
        "\
apiVersion: keda.sh/v1alpha1
kind: ScalingPolicy
metadata: { namespace: prod, name: api-server }
spec:
  target: { apiVersion: apps/v1, kind: Deployment, name: api-server }
  minReplicaCount: 1
  maxReplicaCount: 20
  idleReplicaCount: 0
  pollingInterval: 15
  cooldownPeriod: 300
  initialCooldownPeriod: 60
  triggers: [{ type: rabbitmq, metadata: { value: '10' } }]
  advanced: { horizontalPodAutoscalerConfig: {} }
  replicas: { max: 20 }
  metrics:
    - name: queue_depth
      metricType: AverageValue
      metadata: { threshold: '10' }
  fallback: { failureThreshold: 3 }
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: { namespace: prod, name: api-server }
",
    );
    insta::assert_snapshot!(answer.text);
    assert_eq!(answer.code, FAULTY);
}

#[test]
fn unwise_but_legal() {
    let text = GOOD.replace("min: 3", "min: 1").replace(
        "    - name: cpu\n",
        "    - name: response_time\n      threshold: { scaleOutAbove: 300ms, scaleInBelow: 200ms, for: 0s }\n    - name: cpu\n      window: 4s\n",
    );
    let answer = checked(&text);
    insta::assert_snapshot!(answer.text);
    assert_eq!(answer.code, FINE);
    assert_eq!(check(&[source("policy.yaml", &text)], CHECKED, false, true, PANE).code, FAULTY);
}

#[test]
fn text_that_is_no_yaml() {
    let answer = checked(&GOOD.replace("70% }", "70%"));
    insta::assert_snapshot!(answer.text);
    assert_eq!(answer.code, FAULTY);
}

/// A slip in one document hides nothing that is wrong with the others, and makes no fleet of another document a missing one.
#[test]
fn each_document_of_a_file_is_checked() {
    let slip = GOOD.replace("name: api-server", "name: slip").replace("70% }", "70%");
    let twice = GOOD.replace("name: api-server", "name: twice").replace("spec:\n", "spec:\n  role: ApiServer\n  role: Generic\n  rool: x\n");
    let wrong = GOOD.replace("name: api-server", "name: wrong").replace("min: 3", "min: many");
    let bots = GOOD.replace("kind: Deployment", "kind: ProcessFleet").replace("apiVersion: apps/v1, ", "").replace("name: api-server", "name: bots");
    let (open, near) = (FLEET.replace("command: bot", "command: \"bot"), FLEET.replace("name: bots", "name: boots"));
    let answer = checked(&[&slip, &twice, &wrong, GOOD, &bots, &open, &near].map(str::trim_end).join("\n---\n"));
    insta::assert_snapshot!(answer.text);
    assert_eq!(answer.code, FAULTY);
}

/// In braces a colon without a space is legal YAML and no field.
#[test]
fn a_colon_without_a_space_in_braces_has_its_mend() {
    let answer = checked(&GOOD.replace("min: 3, max: 60", "min: 3, max:60"));
    assert!(answer.text.contains("error[unknown-field]: unknown field `max:60`"), "{}", answer.text);
    assert!(answer.text.contains("= write a space after the colon: `max: 60`"), "{}", answer.text);
}

#[test]
fn two_policies_for_one_target_name_each_other() {
    let other = GOOD.replace("name: api-server }\nspec", "name: another }\nspec");
    let answer = check(&[source("a.yaml", GOOD), source("b.yaml", &other)], CHECKED, false, false, PANE);
    insta::assert_snapshot!(answer.text);
    assert_eq!(answer.code, FAULTY);
    assert_eq!(checked(&format!("{GOOD}---\n{other}")).code, FAULTY);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let missing = read(Path::new("/nonexistent/policy.yaml"));
    let answer = check(&[missing.clone(), source("a.yaml", GOOD)], CHECKED, false, false, PANE);
    assert_eq!(answer.code, UNREADABLE);
    assert!(answer.text.starts_with("error: failed to read /nonexistent/policy.yaml: "), "{}", answer.text);
    assert_eq!(explain(&[missing], PANE, TEXT).code, UNREADABLE);
}

/// What is no policy at all says so, and what to name or to write instead.
#[test]
fn a_file_without_a_policy_says_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let without = tempfile::tempdir().unwrap();
    std::fs::write(without.path().join("loadline.yaml"), "pane: 1s\n").unwrap();
    let written = |name: &str, bytes: &[u8]| {
        let file = folder.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        file
    };
    let files = [
        without.path().to_path_buf(),
        written("empty.yaml", b""),
        written("comments.yaml", b"# spec:\n---\n# later\n"),
        written("binary.yaml", b"\x7fELF\x02\x01\x01\0\0"),
        written("latin.yaml", b"name: caf\xe9\n"),
        written("utf16.yaml", b"\xff\xfek\0i\0n\0d\0"),
    ];
    let mut told = String::new();
    let good = source("good.yaml", GOOD);
    for file in &files {
        let (all, read) = (read_all(std::slice::from_ref(file)), read(file));
        for (command, answer) in [
            ("check", check(&all, CHECKED, false, false, PANE)),
            ("explain", explain(&all, PANE, TEXT)),
            ("diff", diff::diff(&read, &good, DiffFormat::Text, false)),
            ("test", testing::run(std::slice::from_ref(file), None, TestFormat::Text, false)),
        ] {
            let _ = write!(told, "# {command}, exit code {}\n{}", answer.code, answer.text);
        }
    }
    let told = told.replace(&folder.path().display().to_string(), "FOLDER");
    insta::assert_snapshot!(told.replace(&without.path().display().to_string(), "WITHOUT"));
}

/// What `run` would not read is not checked in part either.
#[test]
fn a_file_that_is_too_large_to_run_is_too_large_to_check() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("all.yaml");
    std::fs::write(&file, format!("{GOOD}#{}", "x".repeat(usize::try_from(MAX_FILE_BYTES).unwrap()))).unwrap();
    let answer = check(&read_all(std::slice::from_ref(&file)), CHECKED, false, false, PANE);
    assert_eq!(answer.code, UNREADABLE, "{}", answer.text);
    assert!(answer.text.contains("more than 262144 bytes; split it into several files"), "{}", answer.text);
}

#[test]
fn a_caret_stands_beneath_its_character() {
    let wide = GOOD.replace("metadata: {", "metadata: { annotations: { a: \"ä€😀\" }, labels: {},").replace("namespace: prod", "namespace: 5");
    let answer = checked(&wide);
    let lines: Vec<Vec<char>> = answer.text.lines().map(|l| l.chars().collect()).collect();
    let caret = lines.iter().position(|l| l.contains(&'^')).unwrap();
    let column = lines[caret].iter().position(|c| *c == '^').unwrap();
    assert_eq!(lines[caret - 1][column], '5', "{}", answer.text);
    let long = GOOD.replace("metadata: {", &format!("metadata: {{ labels: {{ a: {} }},", "x".repeat(400))).replace("namespace: prod", "namespace: 5");
    let answer = checked(&long);
    let lines: Vec<Vec<char>> = answer.text.lines().map(|l| l.chars().collect()).collect();
    let caret = lines.iter().position(|l| l.contains(&'^')).unwrap();
    let column = lines[caret].iter().position(|c| *c == '^').unwrap();
    assert_eq!(lines[caret - 1][column], '5', "{}", answer.text);
    assert!(lines.iter().all(|l| l.len() < 200));
}

#[test]
fn colours_only_when_asked_for() {
    let bad = GOOD.replace("min: 3", "min: 0");
    assert!(!checked(&bad).text.contains('\x1b'));
    let coloured = check(&[source("policy.yaml", &bad)], CHECKED, true, false, PANE);
    assert!(coloured.text.contains("\x1b[1;31merror"));
}

#[test]
fn programs_get_json() {
    let bad = GOOD.replace("min: 3", "min: 0");
    let answer: serde_json::Value = serde_json::from_str(&check(&[source("policy.yaml", &bad)], CheckFormat::Json, false, false, PANE).text).unwrap();
    let problem = &answer["problems"][0];
    assert_eq!((problem["line"].as_u64(), problem["column"].as_u64(), problem["code"].as_str()), (Some(7), Some(20), Some("not-available")));
    assert_eq!(answer["policies"][0]["target"], "prod/Deployment/api-server");
    assert_eq!(answer["policies"][0]["valid"], false);
    let answer: serde_json::Value = serde_json::from_str(&explain(&[source("policy.yaml", GOOD)], PANE, JSON).text).unwrap();
    let settings = answer["policies"][0]["settings"].as_array().unwrap();
    assert!(settings.iter().any(|s| s["path"] == "spec.replicas.min" && s["value"] == "3" && s["origin"] == "written"));
}

const FULL: &str = "\
apiVersion: loadline.dev/v1alpha1
kind: ScalingPolicy
metadata: { namespace: prod, name: api-server }
spec:
  target: { apiVersion: apps/v1, kind: Deployment, name: api-server }
  actuator: Scale
  role: ApiServer
  mode: Active
  replicas: { min: 3, max: 60 }
  metrics:
    - name: cpu
      track: { utilization: 70% }
    - name: rps
      kind: Counter
    - name: response_time
      measure: { quantile: 95% }
      window: 60s
      threshold: { scaleOutAbove: 300ms, scaleInBelow: 120ms, for: 30s, step: { out: 20%, in: 1 } }
    - name: queue_depth
      track: { perReplica: 100 }
      staleAfter: 60s
      whenBlind: HoldIn
    - name: memory
      measure: { over: Max, across: Max }
      track: { value: 1536Mi }
    - name: \"odd: name\"
      unit: ratio
      threshold: { scaleOutAbove: 0.5% }
  behavior:
    scaleOut: { stabilization: 0s,   cooldown: 0s,  select: Max, policies: [{ percent: 100, period: 15s }, { replicas: 4, period: 15s }] }
    scaleIn:  { stabilization: 300s, cooldown: 60s, select: Max, policies: [{ percent: 10, period: 60s }] }
  tolerance: { out: 10%, in: 12.5% }
  fallback: { after: 3m, replicas: 10, behavior: IfHigher }
";

#[test]
fn the_effective_document_of_a_full_policy() {
    let full = FULL.replace("odd: name", "odd:name");
    let answer = explain(&[source("policy.yaml", &full)], PANE, TEXT);
    insta::assert_snapshot!(answer.text);
    assert_eq!(answer.code, FINE);
}

/// What `explain` prints is a policy that says the same, with nothing left to a default.
#[test]
fn an_explained_policy_is_the_same_policy() {
    let processes = GOOD.replace("namespace: prod, ", "").replace("apiVersion: apps/v1, kind: Deployment", "kind: ProcessFleet");
    let told = explain(&[source("policy.yaml", &processes)], PANE, TEXT).text;
    let metadata = r#"metadata: { namespace: "local", name: "api-server" }"#;
    assert!(told.contains(&format!("{metadata}  # default  the namespace of processes\n")), "{told}");
    for text in [GOOD.to_owned(), FULL.replace("odd: name", "odd:name"), processes] {
        let explained = explain(&[source("policy.yaml", &text)], PANE, TEXT).text;
        let (before, after) = (policies_in(&text, "a"), policies_in(&explained, "b"));
        assert!(after.problems.is_empty());
        assert_eq!(before.documents[0].policy, after.documents[0].policy, "{explained}");
        assert!(after.documents[0].policy.is_some());
        assert_eq!(explain(&[source("policy.yaml", &explained)], PANE, TEXT).text.lines().count(), explained.lines().count());
    }
}

#[test]
fn the_command_line_reads_files() {
    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        policy: PolicyArgs,
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    std::fs::write(&file, GOOD).unwrap();
    let name = file.to_str().unwrap();
    for (args, code, expected) in
        [(vec!["policy", "check", name], FINE, "1 policy in 1 file: 0 errors, 0 warnings\n"), (vec!["policy", "explain", name], FINE, "replicas:")]
    {
        let cli = Cli::try_parse_from(args).unwrap();
        let mut out = Vec::new();
        assert_eq!(run(&cli.policy, &mut out).unwrap(), code);
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains(expected), "{out}");
    }
    assert!(Cli::try_parse_from(["policy", "check"]).is_err());
    std::fs::write(&file, [0xff, 0xfe, 0x00]).unwrap();
    let cli = Cli::try_parse_from(["policy", "check", name]).unwrap();
    assert_eq!(run(&cli.policy, &mut Vec::new()).unwrap(), UNREADABLE);
}

/// A folder is what `run` reads of it, for `check` and `explain` alike; each policy is told under its file's name, and what is
/// printed is still the policies.
#[test]
fn folders_and_several_files_are_checked_and_explained() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let fleet = "apiVersion: loadline.dev/v1alpha1\nkind: ProcessFleet\nmetadata: { name: bots }\nspec: { command: sleep, replicas: 1 }\n";
    write("b.yaml", &GOOD.replace("name: api-server", "name: other"));
    write("a.yml", &format!("{GOOD}---\n{}", GOOD.replace("name: api-server", "name: third")));
    write("fleet.yaml", fleet);
    write("loadline.yaml", "pane: 1s\n");
    write(".hidden.yaml", "kind: Secret\n");
    write("notes.txt", "kind: Note\n");
    let named = [folder.path().to_path_buf()];
    let plain = |text: String| text.replace(&format!("{}/", folder.path().display()), "");
    let checked = check(&read_all(&named), CHECKED, false, true, PANE);
    assert_eq!((checked.code, checked.text.as_str()), (FINE, "3 policies and 1 fleet in 3 files: 0 errors, 0 warnings\n"));
    let explained = explain(&read_all(&named), PANE, TEXT);
    assert_eq!(explained.code, FINE);
    let text = plain(explained.text);
    let remarks: Vec<&str> = text.lines().filter(|line| line.starts_with('#')).collect();
    assert_eq!(
        remarks,
        ["# a.yml: prod/Deployment/api-server", "# a.yml: prod/Deployment/third", "# b.yaml: prod/Deployment/other", "# fleet.yaml: no ScalingPolicy in it"]
    );
    let again = policies_in(&text, "again.yaml");
    assert!(again.documents.len() == 3 && again.documents.iter().all(|d| d.policy.is_some()), "{:?}", again.all_problems());

    // What is wrong with one takes nothing from the others.
    write("b.yaml", &GOOD.replace("min: 3", "min: 0"));
    let files = [named[0].clone(), folder.path().join("missing.yaml")];
    let answer = explain(&read_all(&files), PANE, TEXT);
    let text = plain(answer.text);
    assert_eq!(answer.code, UNREADABLE);
    assert!(text.contains("# a.yml: prod/Deployment/third\n") && text.contains("--> b.yaml:7:20") && text.contains("failed to read missing.yaml"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&plain(explain(&read_all(&files), PANE, JSON).text)).unwrap();
    let files_of = |list: &str| json[list].as_array().unwrap().iter().map(|entry| entry["file"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(files_of("policies"), ["a.yml", "a.yml", "b.yaml"]);
    assert_eq!(files_of("problems"), ["b.yaml", "b.yaml", "missing.yaml"], "the target of a.yml once more, and its `min`");
    assert_eq!(explain(&read_all(&named), PANE, JSON).code, FAULTY);
}

const REFERENCE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/policy.md"));

/// Every example of the reference is a policy without errors and warnings.
#[test]
fn the_examples_of_the_reference_are_policies() {
    let examples: Vec<&str> = REFERENCE.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 2);
    for example in examples {
        let answer = check(&[source("docs/policy.md", example)], CHECKED, false, true, PANE);
        assert_eq!(answer.code, FINE, "{}", answer.text);
        assert!(answer.text.starts_with("1 policy") || answer.text.starts_with("1 document of tests"), "{}", answer.text);
    }
}

/// The table of defaults, as the program has them: what a role sets in a policy that leaves all to it.
fn table_of_defaults() -> String {
    const ROLES: [&str; 4] = ["Generic", "ApiServer", "BotInstances", "DatabaseReadReplica"];
    let columns: Vec<Vec<(String, String)>> = ROLES
        .iter()
        .map(|role| {
            let text = GOOD
                .replace("role: ApiServer", &format!("role: {role}"))
                .replace("min: 3, ", "")
                .replace("name: cpu", "name: rps")
                .replace("track: { utilization: 70% }", "threshold: { scaleOutAbove: 100 }");
            let file = policies_in(&text, "policy.yaml");
            assert!(!file.has_errors(), "{:?}", file.problems);
            let by_role = file.documents[0].settings.iter().filter(|s| s.origin == crate::model::policy::Origin::Role);
            by_role.map(|s| (s.path.trim_start_matches("spec.").replace("[0]", "[]"), s.value.clone())).collect()
        })
        .collect();
    let mut table = format!("| field | {} |\n|---|---|---|---|---|\n", ROLES.join(" | "));
    for (row, (field, _)) in columns[0].iter().enumerate() {
        let values: Vec<String> = columns.iter().map(|column| format!("`{}`", column[row].1)).collect();
        writeln!(table, "| `{field}` | {} |", values.join(" | ")).unwrap();
    }
    table
}

#[test]
fn the_defaults_of_the_reference_are_those_of_the_program() {
    assert!(REFERENCE.contains(&table_of_defaults()), "docs/policy.md must have this table:\n{}", table_of_defaults());
}

/// Every warning and every field of the effective document is in the reference.
#[test]
fn the_reference_names_every_field() {
    let file = policies_in(&FULL.replace("odd: name", "odd:name"), "policy.yaml");
    for setting in &file.documents[0].settings {
        let name = setting.path.rsplit(['.', ']']).next().unwrap();
        assert!(REFERENCE.contains(&format!("{name}`")) || REFERENCE.contains(&format!("`{name}")), "{}", setting.path);
    }
}

/// What hangs on the length of a pane is seen for another installation: how many panes a window has, and which is too short.
#[test]
fn a_policy_is_explained_for_the_panes_that_there_are() {
    for (pane, window, every, warning) in [
        ("5s", "the time that is measured: 6 panes of 5s", "at every pane, of 5s)", None),
        ("250ms", "the time that is measured: 120 panes of 250ms", "at every pane, of 250ms)", None),
        (
            "20s",
            "the time that is measured: 2 panes of 20s",
            "at every pane, of 20s)",
            Some("`window` 30s has less than two panes (of 20s): one odd pane decides"),
        ),
        ("40s", "the time that is measured: 1 pane of 40s", "at every pane, of 40s)", Some("`window` 30s is shorter than a pane (40s)")),
    ] {
        let answer = explain(&[source("policy.yaml", GOOD)], super::pane(pane).unwrap(), TEXT);
        assert!(answer.text.contains(window) && answer.text.contains(every), "{pane}: {}", answer.text);
        let warnings: Vec<&str> = answer.text.lines().filter(|line| line.starts_with("warning")).collect();
        assert_eq!(warnings.len(), usize::from(warning.is_some()), "{pane}: {warnings:?}");
        assert!(warning.is_none_or(|warning| warnings[0].contains(warning)), "{pane}: {warnings:?}");
        let json: serde_json::Value = serde_json::from_str(&explain(&[source("policy.yaml", GOOD)], super::pane(pane).unwrap(), JSON).text).unwrap();
        assert!(json["policies"][0]["settings"].as_array().unwrap().iter().any(|setting| setting["meaning"] == window), "{json}");
    }
}

/// The demo's windows are short for panes of 5 s, and long enough for its own.
#[test]
fn windows_are_held_against_the_panes_that_there_are() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/storefront/policy.yaml")).unwrap();
    let sources = [Source { name: "policy.yaml".to_owned(), text: Ok(text) }];
    assert!(check(&sources, CHECKED, false, false, PANE).text.contains("window-below-pane"));
    let fine = check(&sources, CHECKED, false, true, Duration::from_millis(250));
    assert_eq!((fine.code, fine.text.as_str()), (FINE, "1 policy in 1 file: 0 errors, 0 warnings\n"));
    assert!(pane("250").unwrap_err().contains("250"));
}

/// What `check` prints for code review is SARIF by OASIS' own schema, with the rule and the place of each problem.
#[test]
fn code_review_gets_sarif() {
    let bad = GOOD.replace("min: 3", "min: 1").replace("utilization: 70%", "utilisation: 70%");
    let unreadable = Source { name: "a b/näht.yaml".to_owned(), text: Err("permission denied".to_owned()) };
    let answer = check(&[source("./policies/policy.yaml", &bad), unreadable], CheckFormat::Sarif, false, false, PANE);
    assert_eq!(answer.code, UNREADABLE);
    let sarif: serde_json::Value = serde_json::from_str(&answer.text).unwrap();
    let schema = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vendor/sarif/sarif-schema-2.1.0.json"));
    let (mut compiler, mut schemas) = (boon::Compiler::new(), boon::Schemas::new());
    compiler.add_resource("sarif.json", serde_json::from_str(schema).unwrap()).unwrap();
    let index = compiler.compile("sarif.json", &mut schemas).unwrap();
    schemas.validate(&sarif, index).unwrap_or_else(|e| panic!("{e}\n{sarif:#}"));
    let mut broken = sarif.clone();
    broken["runs"][0]["results"][0]["level"] = "fatal".into();
    assert!(schemas.validate(&broken, index).is_err(), "the schema checks nothing");

    let run = &sarif["runs"][0];
    // The warning stands before the error in the text, and the error does not hide it.
    assert_eq!(run["results"][0]["ruleId"], "single-replica");
    let result = &run["results"][1];
    assert_eq!(result["ruleId"], "unknown-field");
    assert_eq!(run["tool"]["driver"]["rules"][usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap()]["id"], "unknown-field");
    assert!(result["message"]["text"].as_str().unwrap().contains("did you mean `utilization`?"));
    let physical = &result["locations"][0]["physicalLocation"];
    assert_eq!(physical["artifactLocation"]["uri"], "policies/policy.yaml");
    assert_eq!((&physical["region"]["startLine"], &physical["region"]["startColumn"]), (&10.into(), &16.into()));
    assert_eq!(run["invocations"][0]["executionSuccessful"], false);
    assert_eq!(run["invocations"][0]["toolExecutionNotifications"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], "a%20b/n%C3%A4ht.yaml");
}

const FLEET: &str = "\
apiVersion: loadline.dev/v1alpha1
kind: ProcessFleet
metadata: { namespace: prod, name: bots }
spec: { command: bot, ports: 9000-9009, replicas: 2 }
";

/// A policy that asks its fleet for what it cannot give is warned of where the number stands.
#[test]
fn a_policy_is_held_against_its_fleet() {
    let policy = GOOD.replace("{ apiVersion: apps/v1, kind: Deployment, name: api-server }", "{ kind: ProcessFleet, name: bots }");
    let answer = check(&[source("policy.yaml", &policy), source("fleet.yaml", FLEET)], CHECKED, false, false, PANE);
    insta::assert_snapshot!(answer.text);
    assert_eq!(answer.code, FINE);
    let enough = FLEET.replace("9000-9009", "9000-9099").replace("replicas: 2", "replicas: 2, requests: { cpu: 500m }");
    let answer = check(&[source("policy.yaml", &policy), source("fleet.yaml", &enough)], CHECKED, false, true, PANE);
    assert_eq!(answer.code, FINE, "{}", answer.text);
}

/// An error elsewhere hides nothing of what its fleet cannot give; one in a field that a warning hangs on does.
#[test]
fn a_policy_with_errors_is_held_against_its_fleet_as_far_as_it_is_sound() {
    let policy = GOOD.replace("{ apiVersion: apps/v1, kind: Deployment, name: api-server }", "{ kind: ProcessFleet, name: bots }");
    let (max, utilization) = ("max-beyond-fleet", "nothing-requested");
    for (from, to, expected) in [
        ("replicas:", "rolle: ApiServer\n  replicas:", vec![max, utilization]),
        ("min: 3", "min: three", vec![max, utilization]),
        ("max: 60", "max: 60, maximum: 5", vec![max, utilization]),
        ("track: { utilization: 70% }", "track: { utilization: 70% }\n    - queue_depth", vec![max, utilization]),
        ("track: { utilization: 70% }", "window: 5\n      track: { utilization: 70% }", vec![max, utilization]),
        ("max: 60", "max: sixty", vec![utilization]),
        ("max: 60", "max: -60", vec![utilization]),
        ("{ min: 3, max: 60 }", "60", vec![utilization]),
        ("utilization: 70%", "utilization: 0.7", vec![max]),
        ("utilization: 70%", "utilization: 70%, value: 5", vec![max]),
        ("track: { utilization: 70% }", "track: { utilization: 70% }\n      threshold: { scaleOutAbove: 1 }", vec![max]),
        ("name: cpu", "name: [cpu]", vec![max]),
        ("name: bots }", "name: [bots] }", vec![]),
        ("namespace: prod", "namespace: 5", vec![]),
    ] {
        let faulty = policy.replacen(from, to, 1);
        assert_ne!(faulty, policy, "{from}");
        let answer = check(&[source("policy.yaml", &faulty), source("fleet.yaml", FLEET)], CheckFormat::Json, false, false, PANE);
        assert_eq!(answer.code, FAULTY, "{to}: {}", answer.text);
        let told: serde_json::Value = serde_json::from_str(&answer.text).unwrap();
        let codes = told["problems"].as_array().unwrap().iter().filter_map(|p| p["code"].as_str());
        let codes: Vec<&str> = codes.filter(|code| [max, utilization].contains(code)).collect();
        assert_eq!(codes, expected, "{to}: {}", answer.text);
    }
}

/// A policy that looks for its fleet where there is none of that name, while there is one beside it.
#[test]
fn a_policy_for_a_fleet_of_another_namespace_is_warned_of() {
    let fleet = FLEET.replace("9000-9009", "9000-9099").replace("replicas: 2", "replicas: 2, requests: { cpu: 500m }");
    let policy = GOOD.replace("{ apiVersion: apps/v1, kind: Deployment, name: api-server }", "{ kind: ProcessFleet, name: bots }");
    let told = |namespace: &str, fleet: &str| {
        check(&[source("policy.yaml", &policy.replace("namespace: prod, ", namespace)), source("fleet.yaml", fleet)], CHECKED, false, false, PANE).text
    };
    let warning = "warning[other-namespace]: the fleet `bots` is in the namespace `prod`, and this policy is for one in `local`\n --> policy.yaml:5:";
    for namespace in ["", "namespace: local, "] {
        let told = told(namespace, &fleet);
        assert!(told.contains(warning) && told.contains("write `namespace: prod` in the policy's metadata, or `namespace: local` in the fleet's"), "{told}");
    }
    assert!(told("namespace: prod, ", &fleet).ends_with("0 errors, 0 warnings\n"));
    assert!(told("namespace: local, ", &fleet.replace("name: bots", "name: others")).ends_with("0 errors, 0 warnings\n"), "nothing says where it is");
    let both = format!("{fleet}---\n{}", fleet.replace("namespace: prod", "namespace: local"));
    assert!(told("namespace: local, ", &both).ends_with("0 errors, 0 warnings\n"), "it is there");
}

/// A fleet of nearly the same name that nobody scales is the one that was meant.
#[test]
fn a_policy_for_a_fleet_of_nearly_that_name_is_warned_of() {
    let fleet = FLEET.replace("9000-9009", "9000-9099").replace("replicas: 2", "replicas: 2, requests: { cpu: 500m }");
    let policy = |name: &str| GOOD.replace("{ apiVersion: apps/v1, kind: Deployment, name: api-server }", &format!("{{ kind: ProcessFleet, name: {name} }}"));
    let told = |policies: &str| check(&[source("policy.yaml", policies), source("fleet.yaml", &fleet)], CHECKED, false, false, PANE).text;
    let said = told(&policy("bot"));
    assert!(said.contains("warning[no-such-fleet]: there is no fleet `bot` in these files") && said.contains("did you mean `bots`"), "{said}");
    let both = told(&format!("{}---\n{}", policy("bot"), policy("bots")));
    assert!(!both.contains("no-such-fleet"), "the other one has a policy of its own: {both}");
    let kind = told(&policy("bots").replace("kind: ProcessFleet", "kind: Processfleet"));
    assert!(kind.contains("did you mean `ProcessFleet`?") && !kind.contains("apps/v1"), "{kind}");
}

/// Every code of a warning is in the reference.
#[test]
fn the_reference_names_every_warning() {
    for sources in [
        include_str!("../../model/policy/resolve.rs"),
        include_str!("../../model/policy/resolve/advice.rs"),
        include_str!("../../model/policy/resolve/metric.rs"),
        include_str!("together.rs"),
    ] {
        let calls = sources.split("warn(").skip(1).filter_map(|rest| rest.split(';').next());
        for code in calls.flat_map(|call| call.split('"').skip(1).step_by(2)).filter(|text| is_code(text)) {
            assert!(REFERENCE.contains(&format!("`{code}`")), "docs/policy.md does not name `{code}`");
        }
    }
}

/// `narrow-band`: lower-case words with hyphens.
fn is_code(text: &str) -> bool {
    text.contains('-') && text.chars().all(|c| c.is_ascii_lowercase() || c == '-')
}

fn compared(before: &str, after: &str, format: DiffFormat) -> Answer {
    diff::diff(&source("old.yaml", before), &source("new.yaml", after), format, false)
}

#[test]
fn policies_are_compared_by_what_they_do() {
    // The same in other words, in another order, with a default written out.
    let same = GOOD
        .replace("utilization: 70% }", "utilization: \"70%\" }\n      window: 30s")
        .replace("  role: ApiServer\n", "")
        .replace("spec:\n", "spec:\n  role: ApiServer\n");
    let answer = compared(GOOD, &same, DiffFormat::Text);
    assert_eq!((answer.code, answer.text.as_str()), (FINE, "old.yaml and new.yaml say the same\n"));

    let changed = GOOD.replace("role: ApiServer", "role: Generic").replace("max: 60", "max: 80").replace(
        "    - name: cpu\n      track: { utilization: 70% }\n",
        "    - name: queue_depth\n      track: { perReplica: 100 }\n    - name: cpu\n      track: { utilization: 60% }\n",
    );
    let answer = compared(GOOD, &changed, DiffFormat::Text);
    insta::assert_snapshot!(answer.text);
    assert_eq!(answer.code, FAULTY);
    insta::assert_snapshot!(compared(GOOD, &changed, DiffFormat::Markdown).text);
    let json: serde_json::Value = serde_json::from_str(&compared(GOOD, &changed, DiffFormat::Json).text).unwrap();
    assert_eq!(json["targets"][0]["target"], "prod/Deployment/api-server");

    let another = GOOD.replace("name: api-server }\n  role", "name: other }\n  role");
    let answer = compared(GOOD, &another, DiffFormat::Text);
    assert_eq!(answer.text, "prod/Deployment/api-server: only in old.yaml\n\nprod/Deployment/other: only in new.yaml\n");
    let wrong = compared(GOOD, &GOOD.replace("min: 3", "min: 0"), DiffFormat::Text);
    assert_eq!(wrong.code, UNREADABLE);
    assert!(wrong.text.contains("new.yaml:7:"), "{}", wrong.text);
}

/// A field whose value was forgotten is not passed over in silence; the word `null` is what somebody means.
#[test]
fn a_field_without_a_value_is_said() {
    for (line, warns) in [("      window:\n", true), ("      window: null\n", false), ("      window: 1m\n", false)] {
        let answer = checked(&format!("{GOOD}{line}"));
        assert_eq!(answer.text.contains("warning[empty-field]: `window` has no value, and counts as not written"), warns, "{line}: {}", answer.text);
    }
    let other = super::diff::diff(
        &source("a.yaml", GOOD),
        &source(
            "b.yaml",
            "apiVersion: loadline.dev/v1alpha1\nkind: ProcessFleet\nmetadata: { namespace: local, name: x }\nspec: { command: sh, replicas: 1 }\n",
        ),
        DiffFormat::Text,
        false,
    );
    assert_eq!((other.code, other.text.contains("there is no ScalingPolicy in it")), (UNREADABLE, true), "{}", other.text);
}
