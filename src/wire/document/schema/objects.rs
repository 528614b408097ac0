//! What the objects of documents are for, which their readers tell of the fields in them only.

/// By path, as outlines have it: those of a policy begin with `spec`, those of the other documents with a dot.
const OBJECTS: [(&str, &str); 27] = [
    ("spec", "what is scaled, between which bounds, by which metrics"),
    ("spec.behavior", "how fast the count may change"),
    ("spec.behavior.scaleIn", "how fast, and after how long, the count may fall"),
    ("spec.behavior.scaleOut", "how fast, and after how long, the count may rise"),
    ("spec.fallback", "the count to take where no metric has a usable value for long"),
    ("spec.metrics[].measure", "how samples become the number that is held against the target"),
    ("spec.metrics[].threshold", "a band: above it replicas are added, below it removed, a step at a time"),
    ("spec.metrics[].threshold.step", "how many replicas a step adds or removes"),
    ("spec.metrics[].track", "the value to keep to: the count is computed in proportion"),
    ("spec.replicas", "the bounds of the count"),
    ("spec.startup", "how long a new instance takes until its load says something"),
    ("spec.target", "what has the replicas"),
    ("spec.tolerance", "how far a metric may be from its target without a change"),
    (".metadata", "its name, and what is yours"),
    (".spec", "what the document says"),
    (".spec.drain", "how an instance that is to end is let go"),
    (".spec.endpoints", "a file with the addresses of the ready instances, for what sends them load"),
    (".spec.health", "how it is found out whether an instance is ready"),
    (".spec.health.http", "ready while this answers with a 2xx"),
    (".spec.health.tcp", "ready while this port takes connections"),
    (".spec.measure", "how often each instance's cpu and memory are measured"),
    (".spec.output", "where what instances print goes, and how much of it is kept"),
    (".spec.requests", "what each instance is meant to use, of which a utilization is a share"),
    (".spec.restart", "how long is waited until an instance that ended is started again"),
    (".spec.startup", "how long an instance may take until it is ready"),
    (".spec.tests[].fleet", "the fleet at the start of the test"),
    (".spec.tests[].fleet.requests", "what each instance asks for"),
];

/// What the object at `path` is for.
pub(super) fn meaning(path: &str) -> Option<&'static str> {
    OBJECTS.iter().find(|(of, _)| *of == path).map(|(_, meaning)| *meaning)
}
