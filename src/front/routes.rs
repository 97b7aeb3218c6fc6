//! Which route a request asks for, and so which scope it needs and under which template it is counted.

use std::sync::Arc;

use hyper::Method;

use crate::config::front::routes::{Route, Scope, Segment};

/// The template of everything that is not known.
pub const OTHER: &str = "other";

/// The routes of the API, by the number of their segments; literal segments before any.
#[derive(Debug)]
pub struct Routes {
    known: Vec<Vec<Known>>,
    /// All templates, and [`OTHER`] at the end.
    templates: Vec<Arc<str>>,
}

#[derive(Debug)]
struct Known {
    route: Route,
    template: usize,
}

/// Where a request leads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Found {
    /// What it needs.
    pub scope: Scope,
    /// The number of its template.
    pub template: usize,
}

// === impl Routes ===

impl Routes {
    /// Sorts the routes for the search.
    #[must_use]
    pub fn new(routes: &[Route]) -> Self {
        let mut templates: Vec<Arc<str>> = Vec::new();
        let mut known: Vec<Vec<Known>> = Vec::new();
        for route in routes {
            let template = templates.iter().position(|template| **template == *route.template).unwrap_or_else(|| {
                templates.push(route.template.as_str().into());
                templates.len() - 1
            });
            let count = route.segments.len();
            if known.len() <= count {
                known.resize_with(count + 1, Vec::new);
            }
            known[count].push(Known { route: route.clone(), template });
        }
        known.iter_mut().for_each(|routes| routes.sort_by(|one, other| one.route.segments.cmp(&other.route.segments)));
        templates.push(OTHER.into());
        Self { known, templates }
    }

    /// The route of a path that [`super::path::check`] has passed. HEAD is asked for what GET is; what is not known needs
    /// everything.
    #[must_use]
    pub fn find(&self, method: &Method, path: &str) -> Found {
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        let count = path.bytes().filter(|byte| *byte == b'/').count();
        let mut candidates = self.known.get(count).into_iter().flatten();
        let found = candidates.find(|known| known.route.method == *method && fits(&known.route.segments, path));
        found.map_or(Found { scope: Scope::Admin, template: self.templates.len() - 1 }, |known| Found {
            scope: known.route.scope,
            template: known.template,
        })
    }

    /// All templates, by their numbers.
    #[must_use]
    pub fn templates(&self) -> &[Arc<str>] {
        &self.templates
    }
}

fn fits(segments: &[Segment], path: &str) -> bool {
    segments.iter().zip(path.split('/').skip(1)).all(|(segment, text)| match segment {
        Segment::Literal(literal) => literal == text,
        Segment::Any => !text.is_empty(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Request, environment::Environment};

    /// The routes of DecisionBox, as its profile has them.
    fn routes() -> Routes {
        let text = "profile: decisionbox\nfront: { listen: 127.0.0.1:1, auth: { anonymous: [read] } }";
        let request = Request { text: Some(text), ..Request::default() };
        let config = crate::config::load(&request, &Environment::of([("MONGODB_URI", "mongodb://db")])).unwrap();
        Routes::new(&config.front.unwrap().routes)
    }

    #[test]
    fn each_request_needs_the_scope_of_its_route_and_what_is_not_known_needs_everything() {
        let routes = routes();
        for (method, path, scope, template) in [
            ("GET", "/health", Scope::Open, "/health"),
            ("HEAD", "/health", Scope::Open, "/health"),
            ("POST", "/health", Scope::Admin, OTHER),
            ("GET", "/health/ready", Scope::Open, "/health/ready"),
            ("GET", "/health/", Scope::Admin, OTHER),
            ("GET", "/", Scope::Admin, OTHER),
            ("GET", "/api/v1/projects", Scope::Read, "/api/v1/projects"),
            ("POST", "/api/v1/projects", Scope::Admin, "/api/v1/projects"),
            ("POST", "/api/v1/projects/p/discover", Scope::Runs, "/api/v1/projects/{id}/discover"),
            ("POST", "/api/v1/projects//discover", Scope::Admin, OTHER),
            ("GET", "/api/v1/projects/p/secrets", Scope::Secrets, "/api/v1/projects/{id}/secrets"),
            ("PUT", "/api/v1/projects/p/secrets/llm-api-key", Scope::Secrets, "/api/v1/projects/{id}/secrets/{key}"),
            ("GET", "/api/v1/projects/p/secrets/llm-api-key", Scope::Admin, OTHER),
            ("GET", "/api/v1/projects/p/discoveries/latest", Scope::Read, "/api/v1/projects/{id}/discoveries/latest"),
            ("GET", "/api/v1/projects/p/discoveries/2026-04-04", Scope::Read, "/api/v1/projects/{id}/discoveries/{date}"),
            ("DELETE", "/api/v1/runs/r", Scope::Runs, "/api/v1/runs/{id}"),
            ("DELETE", "/api/v1/projects/p", Scope::Admin, "/api/v1/projects/{id}"),
            ("GET", "/api/v1/Projects", Scope::Admin, OTHER),
        ] {
            let found = routes.find(&Method::from_bytes(method.as_bytes()).unwrap(), path);
            assert_eq!((found.scope, &*routes.templates()[found.template]), (scope, template), "{method} {path}");
        }
    }
}
