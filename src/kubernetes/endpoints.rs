//! What is known of the endpoints that probes ask: what they depend on, how long they take, what to ask instead. Data.
//!
//! The first entry that fits counts, so that systems stand before conventions. DecisionBox was read at dbd5c6a, the others
//! at the commits of their deployment guides.

/// What an answer of an endpoint depends on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Nature {
    /// On something else, which a restart of this container does not mend.
    DependsOn(&'static str),
    /// On nothing: it answers as long as the process does.
    Alone,
}

/// What is known of one endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Endpoint {
    /// All of these stand in the names of the container: its own, its object's, its image's, its file's.
    pub words: &'static [&'static str],
    pub paths: &'static [&'static str],
    pub nature: Nature,
    /// The endpoint's own limit in seconds: it says no only then.
    pub answers_after: u32,
    /// What to ask for liveness instead: a path, or nothing for the port alone.
    pub liveness: Option<&'static str>,
    /// What to ask for readiness instead, and that endpoint's own limit.
    pub readiness: Option<(&'static str, u32)>,
    /// Where that is known from.
    pub source: &'static str,
}

const DECISIONBOX_HEALTH: &str = "libs/go-common/health/health.go: the ping of MongoDB has 5 s";

const ENDPOINTS: [Endpoint; 14] = [
    Endpoint {
        words: &["decisionbox", "dashboard"],
        paths: &["/health"],
        nature: Nature::DependsOn("the API and, behind it, MongoDB"),
        answers_after: 3,
        liveness: None,
        readiness: Some(("/health", 3)),
        source: "ui/dashboard/src/app/health/route.ts: 503 unless the API's /api/v1/health answers within 3 s",
    },
    Endpoint {
        words: &["decisionbox", "api"],
        paths: &["/health"],
        nature: Nature::Alone,
        answers_after: 0,
        liveness: Some("/health"),
        readiness: Some(("/health/ready", 5)),
        source: "libs/go-common/health/health.go: LivenessHandler has no checks",
    },
    Endpoint {
        words: &["decisionbox", "api"],
        paths: &["/health/ready", "/api/v1/health"],
        nature: Nature::DependsOn("MongoDB"),
        answers_after: 5,
        liveness: Some("/health"),
        readiness: Some(("/health/ready", 5)),
        source: DECISIONBOX_HEALTH,
    },
    Endpoint {
        words: &["bellwether"],
        paths: &["/readyz", "/health"],
        nature: Nature::DependsOn("everything that is watched"),
        answers_after: 0,
        liveness: Some("/livez"),
        readiness: Some(("/self/readyz", 0)),
        source: "ARCHITECTURE.md: /readyz is the application's readiness",
    },
    Endpoint {
        words: &["bellwether"],
        paths: &["/self/readyz", "/startupz"],
        nature: Nature::Alone,
        answers_after: 0,
        liveness: Some("/livez"),
        // It fails while the sidecar starts or ends, which is all that its own readiness is about.
        readiness: None,
        source: "ARCHITECTURE.md",
    },
    Endpoint {
        words: &["ragbase"],
        paths: &["/health", "/live"],
        nature: Nature::Alone,
        answers_after: 0,
        liveness: Some("/live"),
        readiness: Some(("/ready", 5)),
        source: "RAGBase 6822119: both answer without a check",
    },
    Endpoint {
        words: &["ragbase"],
        paths: &["/ready"],
        nature: Nature::DependsOn("PostgreSQL, Redis and the queue"),
        answers_after: 0,
        liveness: Some("/live"),
        readiness: Some(("/ready", 5)),
        source: "RAGBase 6822119: SELECT 1 and getJobCounts, which hangs while Redis is away",
    },
    Endpoint {
        words: &["rag-foundation"],
        paths: &["/health", "/ready"],
        nature: Nature::DependsOn("the database, Redis and, for /health, Gemini"),
        answers_after: 2,
        liveness: Some("/live"),
        readiness: Some(("/ready", 2)),
        source: "rag-foundation e120b1b: Gemini is asked with a limit of 2 s",
    },
    Endpoint {
        words: &["myragdb"],
        paths: &["/health"],
        nature: Nature::Alone,
        answers_after: 0,
        liveness: Some("/health"),
        // It has no endpoint whose status tells: a sidecar must judge by the body.
        readiness: None,
        source: "myragdb f636d31: 200 even when the body says unhealthy",
    },
    Endpoint {
        words: &["rag-assistant"],
        paths: &["/health", "/ready"],
        nature: Nature::DependsOn("the database, Redis and, for /health, Gemini"),
        answers_after: 2,
        liveness: Some("/live"),
        readiness: Some(("/ready", 2)),
        source: "rag-foundation e120b1b: Gemini is asked with a limit of 2 s",
    },
    Endpoint {
        words: &[],
        paths: &["/actuator/health"],
        nature: Nature::DependsOn("every health indicator, databases among them"),
        answers_after: 0,
        liveness: Some("/actuator/health/liveness"),
        readiness: Some(("/actuator/health/readiness", 0)),
        source: "spring-boot#41339: 30 s of MongoDB drag liveness along",
    },
    Endpoint {
        words: &[],
        paths: &["/actuator/health/readiness"],
        nature: Nature::DependsOn("what readiness is made of"),
        answers_after: 0,
        liveness: Some("/actuator/health/liveness"),
        readiness: None,
        source: "the names of Spring's probe groups",
    },
    Endpoint {
        words: &[],
        paths: &["/ready", "/readyz", "/readiness", "/health/ready", "/healthz/ready", "/-/ready"],
        nature: Nature::DependsOn("what readiness is made of"),
        answers_after: 0,
        liveness: None,
        readiness: None,
        source: "the names of readiness endpoints by convention",
    },
    Endpoint {
        words: &[],
        paths: &["/live", "/livez", "/liveness", "/health/live", "/healthz/live", "/actuator/health/liveness", "/-/healthy", "/ping"],
        nature: Nature::Alone,
        answers_after: 0,
        liveness: None,
        readiness: None,
        source: "the names of liveness endpoints by convention",
    },
];

/// What is known of a path of a container with these names, in lower case.
pub(super) fn find(names: &str, path: &str) -> Option<&'static Endpoint> {
    let path = path.split('?').next().unwrap_or_default();
    let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
    ENDPOINTS.iter().find(|endpoint| endpoint.paths.contains(&path) && endpoint.words.iter().all(|word| names.contains(word)))
}
