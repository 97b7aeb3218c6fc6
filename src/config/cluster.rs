//! Where a Kubernetes cluster is, for the sections that ask one.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::problems::{Complaints, Problems};
use crate::config::spanned::Spanned;

/// The name of a namespace is no longer.
const LONGEST_NAME: usize = 63;

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Cluster")]
pub(super) struct RawCluster {
    /// A kubeconfig: that of the pod's service account unless set.
    kubeconfig: Option<PathBuf>,
    /// The namespace: that of the pod, or of the kubeconfig, unless set.
    namespace: Option<Spanned<String>>,
}

/// Where a cluster is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClusterAccess {
    /// A kubeconfig; that of the pod's service account where there is none.
    pub kubeconfig: Option<PathBuf>,
    /// The namespace; that of the pod or of the kubeconfig where there is none.
    pub namespace: Option<String>,
}

// === impl RawCluster ===

impl RawCluster {
    /// `path` is where it stands in the file.
    pub(super) fn validate(self, path: &str, problems: &mut Problems) -> ClusterAccess {
        let namespace = self.namespace.filter(|namespace| !namespace.value.is_empty());
        if let Some(Spanned { place, value }) = &namespace
            && !is_dns_label(value)
        {
            Complaints::new(place.clone(), format!("{path}.namespace"), problems)
                .say(format!("a namespace has 1 to {LONGEST_NAME} lower case letters, digits or `-`"));
        }
        let kubeconfig = self.kubeconfig.filter(|path| !path.as_os_str().is_empty());
        ClusterAccess { kubeconfig, namespace: namespace.map(|namespace| namespace.value) }
    }
}

/// Whether Kubernetes takes it as a name.
pub(super) fn is_dns_label(text: &str) -> bool {
    let is_fit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let has_dash_at_end = text.starts_with('-') || text.ends_with('-');
    (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(is_fit) && !has_dash_at_end
}
