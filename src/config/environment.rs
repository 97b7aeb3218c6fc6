//! Variables in a configuration: `${NAME}`, `${NAME:-default}`, and `$$` for a dollar sign.
//!
//! `NAME_FILE` is read before `NAME`, as container images do for mounted secrets. The environment is an argument.

use std::collections::HashMap;
use std::path::Path;

use crate::config::problems::{Problem, Problems};
use crate::config::tree::{Content, Node, Scalar};

/// The variables that a configuration may name.
#[derive(Clone, Debug, Default)]
pub struct Environment(HashMap<String, String>);

/// Why a variable has no value.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// It is not set and has no default.
    #[error("the variable {0} is not set; set {0}, or {0}_FILE to the path of a file that holds the value")]
    Unset(String),
    /// `NAME_FILE` names a file that cannot be read.
    #[error("{name}_FILE is set, and the file {path} cannot be read")]
    File {
        /// The variable's name, without `_FILE`.
        name: String,
        /// The path it holds.
        path: String,
        /// Why it cannot be read.
        #[source]
        cause: std::io::Error,
    },
    /// A `${` without its `}`, or a name that is none.
    #[error("`{0}` is not a variable: write ${{NAME}} or ${{NAME:-default}}, and $$ for a dollar sign")]
    Syntax(String),
}

// === impl Environment ===

impl Environment {
    /// The environment of this process; variables that are not Unicode are left out.
    #[must_use]
    pub fn of_process() -> Self {
        Self(std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect())
    }

    /// An environment of these variables and no others.
    #[must_use]
    pub fn of<const N: usize>(variables: [(&str, &str); N]) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// All variables, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of a variable: the content of the file that `NAME_FILE` names (without the line break at its end),
    /// else `NAME`. An empty value counts as none, as in `${NAME:-default}` of a shell.
    ///
    /// # Errors
    /// When `NAME_FILE` names a file that cannot be read.
    pub fn get(&self, name: &str) -> Result<Option<String>, EnvironmentError> {
        if let Some(path) = self.0.get(&format!("{name}_FILE")).filter(|path| !path.is_empty()) {
            let content = std::fs::read_to_string(Path::new(path)).map_err(|cause| EnvironmentError::File {
                name: name.to_owned(),
                path: path.clone(),
                cause,
            })?;
            return Ok(Some(content.trim_end_matches(['\n', '\r']).to_owned()));
        }
        Ok(self.0.get(name).filter(|value| !value.is_empty()).cloned())
    }

    /// Fills the variables of a text in; `None` when it has none.
    ///
    /// # Errors
    /// The first variable that cannot be filled in.
    pub fn expand(&self, text: &str) -> Result<Option<String>, EnvironmentError> {
        if !text.contains('$') {
            return Ok(None);
        }
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            expanded.push_str(&rest[..dollar]);
            let after = &rest[dollar + 1..];
            if let Some(after) = after.strip_prefix('$') {
                expanded.push('$');
                rest = after;
            } else if let Some(after) = after.strip_prefix('{') {
                let end = after.find('}').ok_or_else(|| EnvironmentError::Syntax(rest[dollar..].to_owned()))?;
                expanded.push_str(&self.reference(&after[..end])?);
                rest = &after[end + 1..];
            } else {
                // Operators of MongoDB and ends of regular expressions: `$in`, `^stale$`.
                expanded.push('$');
                rest = after;
            }
        }
        expanded.push_str(rest);
        Ok(Some(expanded))
    }

    fn reference(&self, reference: &str) -> Result<String, EnvironmentError> {
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_name {
            return Err(EnvironmentError::Syntax(format!("${{{reference}}}")));
        }
        match (self.get(name)?, default) {
            (Some(value), _) => Ok(value),
            (None, Some(default)) => Ok(default.to_owned()),
            (None, None) => Err(EnvironmentError::Unset(name.to_owned())),
        }
    }
}

/// Fills the variables of a whole tree in. What cannot be filled in is a problem, and its value is dropped, so that it
/// causes no second one.
pub fn expand_tree(node: &mut Node, environment: &Environment, problems: &mut Problems) {
    match &mut node.content {
        Content::Scalar(scalar) => {
            if let Err(error) = expand_scalar(scalar, environment) {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                let message = format!("{error}{cause}");
                problems.error(Problem { place: Some(node.place.clone()), path: String::new(), message });
                node.content = Content::Failed;
            }
        }
        Content::Failed => {}
        Content::List(items) => items.iter_mut().for_each(|item| expand_tree(item, environment, problems)),
        Content::Map(entries) => entries.iter_mut().for_each(|(_, value)| expand_tree(value, environment, problems)),
    }
}

fn expand_scalar(scalar: &mut Scalar, environment: &Environment) -> Result<(), EnvironmentError> {
    if let Some(expanded) = environment.expand(&scalar.text)? {
        scalar.written = Some(std::mem::replace(&mut scalar.text, expanded));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_defaults_and_dollars() {
        let environment = Environment::of([("HOST", "db"), ("EMPTY", "")]);
        let expand = |text: &str| environment.expand(text).map_err(|error| error.to_string());
        assert_eq!(expand("mongodb://${HOST}:27017").unwrap().as_deref(), Some("mongodb://db:27017"));
        assert_eq!(expand("${NONE:-a:-b}/x").unwrap().as_deref(), Some("a:-b/x"));
        assert_eq!(expand("${EMPTY:-default}").unwrap().as_deref(), Some("default"));
        assert_eq!(expand("a$$b").unwrap().as_deref(), Some("a$b"));
        assert_eq!(expand("^stale$").unwrap().as_deref(), Some("^stale$"));
        assert_eq!(expand("plain").unwrap(), None);
        assert!(expand("${NONE}").unwrap_err().contains("NONE is not set; set NONE, or NONE_FILE"));
        assert!(expand("${HOST").unwrap_err().contains("is not a variable"));
        assert!(expand("${a b}").unwrap_err().contains("is not a variable"));
    }

    #[test]
    fn a_file_goes_before_the_variable() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "from file\n").unwrap();
        let environment = Environment::of([("PW_FILE", file.path().to_str().unwrap()), ("PW", "from variable")]);
        assert_eq!(environment.get("PW").unwrap().as_deref(), Some("from file"));
        let missing = Environment::of([("PW_FILE", "/nonexistent/pw"), ("PW", "from variable")]);
        assert_eq!(missing.get("PW").unwrap_err().to_string(), "PW_FILE is set, and the file /nonexistent/pw cannot be read");
    }
}
