//! The Go structs of pods, for messages.

use serde_json::{Value, json};

use crate::field::Raw;
use crate::kinds::go_shape::{self, Part, Shape};
use crate::kinds::pod_parts::TOLERATION;
use crate::kinds::volume_shapes::{
    AWS_ELASTIC_BLOCK_STORE, AZURE_DISK, CLAIM_SPEC, FIBRE_CHANNEL, FLOCKER, GCE_DISK, HOST_PATH, NFS, NODE_SELECTOR,
    NODE_SELECTOR_TERM, PHOTON_DISK, PORTWORX_VOLUME, QUOBYTE, VSPHERE_VOLUME, ceph_fs, cinder, flex_volume, iscsi,
    rbd, scale_io, storage_os,
};
use crate::object::Fields;

/// What the internal type keeps in the security context and the API beside it.
const MOVED: &[&str] = &["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers"];

/// A spec with its fields where the internal type has them.
fn internal(spec: Option<&Value>) -> Value {
    let mut spec = spec.cloned().unwrap_or_else(|| json!({}));
    for field in MOVED {
        if let Some(value) = spec.take_at(&[field]) {
            spec.set(&["securityContext", field], value);
        }
    }
    spec
}

/// The spec of a pod as messages show it.
pub fn shown_spec(spec: Option<&Value>) -> Raw {
    go_shape::by_value(Some(&internal(spec)), POD_SPEC)
}

/// A pod template as messages show it: the fields of its metadata stand beside the spec.
pub fn shown_template(template: Option<&Value>) -> Raw {
    let part = |field: &str| template.and_then(|template| template.at(&[field]));
    let metadata = go_shape::versioned(Some(part("metadata").unwrap_or(&json!({}))), "ObjectMeta").0;
    let fields = metadata.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default();
    let comma = if fields.is_empty() { "" } else { "," };
    Raw(format!("{{{fields}{comma}\"Spec\":{}}}", shown_spec(part("spec")).0))
}

/// The lines in which two specs differ.
pub fn spec_diff(old: Option<&Value>, new: Option<&Value>) -> String {
    go_shape::diff(Some(&internal(old)), Some(&internal(new)), POD_SPEC)
}

/// The lines in which two ephemeral containers differ.
pub fn ephemeral_diff(old: &Value, new: &Value) -> String {
    go_shape::diff(Some(old), Some(new), EPHEMERAL_CONTAINER)
}

const NAMED: Shape = &[("Name", "name", Part::Text)];
const FIELD_REF: Shape = &[("APIVersion", "apiVersion", Part::Text), ("FieldPath", "fieldPath", Part::Text)];
const RESOURCE_REF: Shape = &[
    ("ContainerName", "containerName", Part::Text),
    ("Resource", "resource", Part::Text),
    ("Divisor", "divisor", Part::Text),
];
const KEY_REF: Shape =
    &[("Name", "name", Part::Text), ("Key", "key", Part::Text), ("Optional", "optional", Part::Plain)];
const OPTIONAL_REF: Shape = &[("Name", "name", Part::Text), ("Optional", "optional", Part::Plain)];
const KEY_TO_PATH: Shape = &[("Key", "key", Part::Text), ("Path", "path", Part::Text), ("Mode", "mode", Part::Plain)];
const DOWNWARD_FILE: Shape = &[
    ("Path", "path", Part::Text),
    ("FieldRef", "fieldRef", Part::Pointer(FIELD_REF)),
    ("ResourceFieldRef", "resourceFieldRef", Part::Pointer(RESOURCE_REF)),
    ("Mode", "mode", Part::Plain),
];

pub const RESOURCES: Shape = &[
    ("Limits", "limits", Part::Plain),
    ("Requests", "requests", Part::Plain),
    ("Claims", "claims", Part::List(&[("Name", "name", Part::Text), ("Request", "request", Part::Text)])),
];

const EXEC: Shape = &[("Command", "command", Part::Plain)];
const HTTP_GET: Shape = &[
    ("Path", "path", Part::Text),
    ("Port", "port", Part::Int),
    ("Host", "host", Part::Text),
    ("Scheme", "scheme", Part::Text),
    ("HTTPHeaders", "httpHeaders", Part::List(&[("Name", "name", Part::Text), ("Value", "value", Part::Text)])),
];
const TCP_SOCKET: Shape = &[("Port", "port", Part::Int), ("Host", "host", Part::Text)];

const PROBE: Shape = &[
    ("Exec", "exec", Part::Pointer(EXEC)),
    ("HTTPGet", "httpGet", Part::Pointer(HTTP_GET)),
    ("TCPSocket", "tcpSocket", Part::Pointer(TCP_SOCKET)),
    ("GRPC", "grpc", Part::Pointer(&[("Port", "port", Part::Int), ("Service", "service", Part::Plain)])),
    ("InitialDelaySeconds", "initialDelaySeconds", Part::Int),
    ("TimeoutSeconds", "timeoutSeconds", Part::Int),
    ("PeriodSeconds", "periodSeconds", Part::Int),
    ("SuccessThreshold", "successThreshold", Part::Int),
    ("FailureThreshold", "failureThreshold", Part::Int),
    ("TerminationGracePeriodSeconds", "terminationGracePeriodSeconds", Part::Plain),
];

const HOOK: Shape = &[
    ("Exec", "exec", Part::Pointer(EXEC)),
    ("HTTPGet", "httpGet", Part::Pointer(HTTP_GET)),
    ("TCPSocket", "tcpSocket", Part::Pointer(TCP_SOCKET)),
    ("Sleep", "sleep", Part::Pointer(&[("Seconds", "seconds", Part::Int)])),
];

pub const PROFILE: Shape = &[("Type", "type", Part::Text), ("LocalhostProfile", "localhostProfile", Part::Plain)];
const SELINUX: Shape = &[
    ("User", "user", Part::Text),
    ("Role", "role", Part::Text),
    ("Type", "type", Part::Text),
    ("Level", "level", Part::Text),
];
const WINDOWS: Shape = &[
    ("GMSACredentialSpecName", "gmsaCredentialSpecName", Part::Plain),
    ("GMSACredentialSpec", "gmsaCredentialSpec", Part::Plain),
    ("RunAsUserName", "runAsUserName", Part::Plain),
    ("HostProcess", "hostProcess", Part::Plain),
];

pub const SECURITY_CONTEXT: Shape = &[
    ("Capabilities", "capabilities", Part::Pointer(&[("Add", "add", Part::Plain), ("Drop", "drop", Part::Plain)])),
    ("Privileged", "privileged", Part::Plain),
    ("SELinuxOptions", "seLinuxOptions", Part::Pointer(SELINUX)),
    ("WindowsOptions", "windowsOptions", Part::Pointer(WINDOWS)),
    ("RunAsUser", "runAsUser", Part::Plain),
    ("RunAsGroup", "runAsGroup", Part::Plain),
    ("RunAsNonRoot", "runAsNonRoot", Part::Plain),
    ("ReadOnlyRootFilesystem", "readOnlyRootFilesystem", Part::Plain),
    ("AllowPrivilegeEscalation", "allowPrivilegeEscalation", Part::Plain),
    ("ProcMount", "procMount", Part::Plain),
    ("SeccompProfile", "seccompProfile", Part::Pointer(PROFILE)),
    ("AppArmorProfile", "appArmorProfile", Part::Pointer(PROFILE)),
];

const POD_SECURITY_CONTEXT: Shape = &[
    ("HostNetwork", "hostNetwork", Part::Bool),
    ("HostPID", "hostPID", Part::Bool),
    ("HostIPC", "hostIPC", Part::Bool),
    ("ShareProcessNamespace", "shareProcessNamespace", Part::Plain),
    ("HostUsers", "hostUsers", Part::Plain),
    ("SELinuxOptions", "seLinuxOptions", Part::Pointer(SELINUX)),
    ("WindowsOptions", "windowsOptions", Part::Pointer(WINDOWS)),
    ("RunAsUser", "runAsUser", Part::Plain),
    ("RunAsGroup", "runAsGroup", Part::Plain),
    ("RunAsNonRoot", "runAsNonRoot", Part::Plain),
    ("SupplementalGroups", "supplementalGroups", Part::Plain),
    ("SupplementalGroupsPolicy", "supplementalGroupsPolicy", Part::Plain),
    ("FSGroup", "fsGroup", Part::Plain),
    ("FSGroupChangePolicy", "fsGroupChangePolicy", Part::Plain),
    ("Sysctls", "sysctls", Part::List(&[("Name", "name", Part::Text), ("Value", "value", Part::Text)])),
    ("SeccompProfile", "seccompProfile", Part::Pointer(PROFILE)),
    ("AppArmorProfile", "appArmorProfile", Part::Pointer(PROFILE)),
    ("SELinuxChangePolicy", "seLinuxChangePolicy", Part::Plain),
];

pub const CONTAINER_PORT: Shape = &[
    ("Name", "name", Part::Text),
    ("HostPort", "hostPort", Part::Int),
    ("ContainerPort", "containerPort", Part::Int),
    ("Protocol", "protocol", Part::Text),
    ("HostIP", "hostIP", Part::Text),
];

const ENV_SOURCE: Shape = &[
    ("FieldRef", "fieldRef", Part::Pointer(FIELD_REF)),
    ("ResourceFieldRef", "resourceFieldRef", Part::Pointer(RESOURCE_REF)),
    ("ConfigMapKeyRef", "configMapKeyRef", Part::Pointer(KEY_REF)),
    ("SecretKeyRef", "secretKeyRef", Part::Pointer(KEY_REF)),
    (
        "FileKeyRef",
        "fileKeyRef",
        Part::Pointer(&[
            ("VolumeName", "volumeName", Part::Text),
            ("Path", "path", Part::Text),
            ("Key", "key", Part::Text),
            ("Optional", "optional", Part::Plain),
        ]),
    ),
];

/// A container; an ephemeral one says beside it what it looks into.
macro_rules! container {
    ($($more:expr),*) => {
        &[
            ("Name", "name", Part::Text),
            ("Image", "image", Part::Text),
            ("Command", "command", Part::Plain),
            ("Args", "args", Part::Plain),
            ("WorkingDir", "workingDir", Part::Text),
            ("Ports", "ports", Part::List(CONTAINER_PORT)),
            (
                "EnvFrom",
                "envFrom",
                Part::List(&[
                    ("Prefix", "prefix", Part::Text),
                    ("ConfigMapRef", "configMapRef", Part::Pointer(OPTIONAL_REF)),
                    ("SecretRef", "secretRef", Part::Pointer(OPTIONAL_REF)),
                ]),
            ),
            (
                "Env",
                "env",
                Part::List(&[
                    ("Name", "name", Part::Text),
                    ("Value", "value", Part::Text),
                    ("ValueFrom", "valueFrom", Part::Pointer(ENV_SOURCE)),
                ]),
            ),
            ("Resources", "resources", Part::Struct(RESOURCES)),
            ("ResizePolicy", "resizePolicy", Part::List(RESIZE_POLICY)),
            ("RestartPolicy", "restartPolicy", Part::Plain),
            (
                "RestartPolicyRules",
                "restartPolicyRules",
                Part::List(&[
                    ("Action", "action", Part::Text),
                    (
                        "ExitCodes",
                        "exitCodes",
                        Part::Pointer(&[("Operator", "operator", Part::Text), ("Values", "values", Part::Plain)]),
                    ),
                ]),
            ),
            (
                "VolumeMounts",
                "volumeMounts",
                Part::List(&[
                    ("Name", "name", Part::Text),
                    ("ReadOnly", "readOnly", Part::Bool),
                    ("RecursiveReadOnly", "recursiveReadOnly", Part::Plain),
                    ("MountPath", "mountPath", Part::Text),
                    ("SubPath", "subPath", Part::Text),
                    ("MountPropagation", "mountPropagation", Part::Plain),
                    ("SubPathExpr", "subPathExpr", Part::Text),
                ]),
            ),
            (
                "VolumeDevices",
                "volumeDevices",
                Part::List(&[("Name", "name", Part::Text), ("DevicePath", "devicePath", Part::Text)]),
            ),
            ("LivenessProbe", "livenessProbe", Part::Pointer(PROBE)),
            ("ReadinessProbe", "readinessProbe", Part::Pointer(PROBE)),
            ("StartupProbe", "startupProbe", Part::Pointer(PROBE)),
            (
                "Lifecycle",
                "lifecycle",
                Part::Pointer(&[
                    ("PostStart", "postStart", Part::Pointer(HOOK)),
                    ("PreStop", "preStop", Part::Pointer(HOOK)),
                    ("StopSignal", "stopSignal", Part::Plain),
                ]),
            ),
            ("TerminationMessagePath", "terminationMessagePath", Part::Text),
            ("TerminationMessagePolicy", "terminationMessagePolicy", Part::Text),
            ("ImagePullPolicy", "imagePullPolicy", Part::Text),
            ("SecurityContext", "securityContext", Part::Pointer(SECURITY_CONTEXT)),
            ("Stdin", "stdin", Part::Bool),
            ("StdinOnce", "stdinOnce", Part::Bool),
            ("TTY", "tty", Part::Bool),
            $($more),*
        ]
    };
}

pub const RESIZE_POLICY: Shape =
    &[("ResourceName", "resourceName", Part::Text), ("RestartPolicy", "restartPolicy", Part::Text)];
const CONTAINER: Shape = container!();
const EPHEMERAL_CONTAINER: Shape = container!(("TargetContainerName", "targetContainerName", Part::Text));

pub const TRUST_BUNDLE: Shape = &[
    ("Name", "name", Part::Plain),
    ("SignerName", "signerName", Part::Plain),
    ("LabelSelector", "labelSelector", Part::Meta("LabelSelector")),
    ("Optional", "optional", Part::Plain),
    ("Path", "path", Part::Text),
];

const PROJECTION: Shape = &[
    (
        "Secret",
        "secret",
        Part::Pointer(&[
            ("Name", "name", Part::Text),
            ("Items", "items", Part::List(KEY_TO_PATH)),
            ("Optional", "optional", Part::Plain),
        ]),
    ),
    ("DownwardAPI", "downwardAPI", Part::Pointer(&[("Items", "items", Part::List(DOWNWARD_FILE))])),
    (
        "ConfigMap",
        "configMap",
        Part::Pointer(&[
            ("Name", "name", Part::Text),
            ("Items", "items", Part::List(KEY_TO_PATH)),
            ("Optional", "optional", Part::Plain),
        ]),
    ),
    (
        "ServiceAccountToken",
        "serviceAccountToken",
        Part::Pointer(&[
            ("Audience", "audience", Part::Text),
            ("ExpirationSeconds", "expirationSeconds", Part::Int),
            ("Path", "path", Part::Text),
        ]),
    ),
    ("ClusterTrustBundle", "clusterTrustBundle", Part::Pointer(TRUST_BUNDLE)),
    (
        "PodCertificate",
        "podCertificate",
        Part::Pointer(&[
            ("SignerName", "signerName", Part::Text),
            ("KeyType", "keyType", Part::Text),
            ("MaxExpirationSeconds", "maxExpirationSeconds", Part::Plain),
            ("CredentialBundlePath", "credentialBundlePath", Part::Text),
            ("KeyPath", "keyPath", Part::Text),
            ("CertificateChainPath", "certificateChainPath", Part::Text),
            ("UserAnnotations", "userAnnotations", Part::Plain),
        ]),
    ),
];

const VOLUME: Shape = &[
    ("Name", "name", Part::Text),
    ("HostPath", "hostPath", Part::Pointer(HOST_PATH)),
    (
        "EmptyDir",
        "emptyDir",
        Part::Pointer(&[("Medium", "medium", Part::Text), ("SizeLimit", "sizeLimit", Part::Plain)]),
    ),
    ("GCEPersistentDisk", "gcePersistentDisk", Part::Pointer(GCE_DISK)),
    ("AWSElasticBlockStore", "awsElasticBlockStore", Part::Pointer(AWS_ELASTIC_BLOCK_STORE)),
    (
        "GitRepo",
        "gitRepo",
        Part::Pointer(&[
            ("Repository", "repository", Part::Text),
            ("Revision", "revision", Part::Text),
            ("Directory", "directory", Part::Text),
        ]),
    ),
    (
        "Secret",
        "secret",
        Part::Pointer(&[
            ("SecretName", "secretName", Part::Text),
            ("Items", "items", Part::List(KEY_TO_PATH)),
            ("DefaultMode", "defaultMode", Part::Plain),
            ("Optional", "optional", Part::Plain),
        ]),
    ),
    ("NFS", "nfs", Part::Pointer(NFS)),
    ("ISCSI", "iscsi", Part::Pointer(&iscsi(NAMED))),
    (
        "Glusterfs",
        "glusterfs",
        Part::Pointer(&[
            ("EndpointsName", "endpoints", Part::Text),
            ("Path", "path", Part::Text),
            ("ReadOnly", "readOnly", Part::Bool),
        ]),
    ),
    (
        "PersistentVolumeClaim",
        "persistentVolumeClaim",
        Part::Pointer(&[("ClaimName", "claimName", Part::Text), ("ReadOnly", "readOnly", Part::Bool)]),
    ),
    ("RBD", "rbd", Part::Pointer(&rbd(NAMED))),
    ("Quobyte", "quobyte", Part::Pointer(QUOBYTE)),
    ("FlexVolume", "flexVolume", Part::Pointer(&flex_volume(NAMED))),
    ("Cinder", "cinder", Part::Pointer(&cinder(NAMED))),
    ("CephFS", "cephfs", Part::Pointer(&ceph_fs(NAMED))),
    ("Flocker", "flocker", Part::Pointer(FLOCKER)),
    (
        "DownwardAPI",
        "downwardAPI",
        Part::Pointer(&[("Items", "items", Part::List(DOWNWARD_FILE)), ("DefaultMode", "defaultMode", Part::Plain)]),
    ),
    ("FC", "fc", Part::Pointer(FIBRE_CHANNEL)),
    (
        "AzureFile",
        "azureFile",
        Part::Pointer(&[
            ("SecretName", "secretName", Part::Text),
            ("ShareName", "shareName", Part::Text),
            ("ReadOnly", "readOnly", Part::Bool),
        ]),
    ),
    (
        "ConfigMap",
        "configMap",
        Part::Pointer(&[
            ("Name", "name", Part::Text),
            ("Items", "items", Part::List(KEY_TO_PATH)),
            ("DefaultMode", "defaultMode", Part::Plain),
            ("Optional", "optional", Part::Plain),
        ]),
    ),
    ("VsphereVolume", "vsphereVolume", Part::Pointer(VSPHERE_VOLUME)),
    ("AzureDisk", "azureDisk", Part::Pointer(AZURE_DISK)),
    ("PhotonPersistentDisk", "photonPersistentDisk", Part::Pointer(PHOTON_DISK)),
    (
        "Projected",
        "projected",
        Part::Pointer(&[("Sources", "sources", Part::List(PROJECTION)), ("DefaultMode", "defaultMode", Part::Plain)]),
    ),
    ("PortworxVolume", "portworxVolume", Part::Pointer(PORTWORX_VOLUME)),
    ("ScaleIO", "scaleIO", Part::Pointer(&scale_io(NAMED))),
    ("StorageOS", "storageos", Part::Pointer(&storage_os(NAMED))),
    (
        "CSI",
        "csi",
        Part::Pointer(&[
            ("Driver", "driver", Part::Text),
            ("ReadOnly", "readOnly", Part::Plain),
            ("FSType", "fsType", Part::Plain),
            ("VolumeAttributes", "volumeAttributes", Part::Plain),
            ("NodePublishSecretRef", "nodePublishSecretRef", Part::Pointer(NAMED)),
        ]),
    ),
    (
        "Ephemeral",
        "ephemeral",
        Part::Pointer(&[(
            "VolumeClaimTemplate",
            "volumeClaimTemplate",
            Part::Pointer(&[("Spec", "spec", Part::Struct(CLAIM_SPEC))]),
        )]),
    ),
    (
        "Image",
        "image",
        Part::Pointer(&[("Reference", "reference", Part::Text), ("PullPolicy", "pullPolicy", Part::Text)]),
    ),
];

const POD_AFFINITY_TERM: Shape = &[
    ("LabelSelector", "labelSelector", Part::Meta("LabelSelector")),
    ("Namespaces", "namespaces", Part::Plain),
    ("TopologyKey", "topologyKey", Part::Text),
    ("NamespaceSelector", "namespaceSelector", Part::Meta("LabelSelector")),
    ("MatchLabelKeys", "matchLabelKeys", Part::Plain),
    ("MismatchLabelKeys", "mismatchLabelKeys", Part::Plain),
];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const POD_AFFINITY: Shape = &[
    ("RequiredDuringSchedulingIgnoredDuringExecution", REQUIRED, Part::List(POD_AFFINITY_TERM)),
    (
        "PreferredDuringSchedulingIgnoredDuringExecution",
        PREFERRED,
        Part::List(&[
            ("Weight", "weight", Part::Int),
            ("PodAffinityTerm", "podAffinityTerm", Part::Struct(POD_AFFINITY_TERM)),
        ]),
    ),
];
const AFFINITY: Shape = &[
    (
        "NodeAffinity",
        "nodeAffinity",
        Part::Pointer(&[
            ("RequiredDuringSchedulingIgnoredDuringExecution", REQUIRED, Part::Pointer(NODE_SELECTOR)),
            (
                "PreferredDuringSchedulingIgnoredDuringExecution",
                PREFERRED,
                Part::List(&[
                    ("Weight", "weight", Part::Int),
                    ("Preference", "preference", Part::Struct(NODE_SELECTOR_TERM)),
                ]),
            ),
        ]),
    ),
    ("PodAffinity", "podAffinity", Part::Pointer(POD_AFFINITY)),
    ("PodAntiAffinity", "podAntiAffinity", Part::Pointer(POD_AFFINITY)),
];

pub const RESOURCE_CLAIM: Shape = &[
    ("Name", "name", Part::Text),
    ("ResourceClaimName", "resourceClaimName", Part::Plain),
    ("ResourceClaimTemplateName", "resourceClaimTemplateName", Part::Plain),
];

const POD_SPEC: Shape = &[
    ("Volumes", "volumes", Part::List(VOLUME)),
    ("InitContainers", "initContainers", Part::List(CONTAINER)),
    ("Containers", "containers", Part::List(CONTAINER)),
    ("EphemeralContainers", "ephemeralContainers", Part::List(EPHEMERAL_CONTAINER)),
    ("RestartPolicy", "restartPolicy", Part::Text),
    ("TerminationGracePeriodSeconds", "terminationGracePeriodSeconds", Part::Plain),
    ("ActiveDeadlineSeconds", "activeDeadlineSeconds", Part::Plain),
    ("DNSPolicy", "dnsPolicy", Part::Text),
    ("NodeSelector", "nodeSelector", Part::Plain),
    ("ServiceAccountName", "serviceAccountName", Part::Text),
    ("AutomountServiceAccountToken", "automountServiceAccountToken", Part::Plain),
    ("NodeName", "nodeName", Part::Text),
    ("SecurityContext", "securityContext", Part::Pointer(POD_SECURITY_CONTEXT)),
    ("ImagePullSecrets", "imagePullSecrets", Part::List(NAMED)),
    ("Hostname", "hostname", Part::Text),
    ("Subdomain", "subdomain", Part::Text),
    ("SetHostnameAsFQDN", "setHostnameAsFQDN", Part::Plain),
    ("Affinity", "affinity", Part::Pointer(AFFINITY)),
    ("SchedulerName", "schedulerName", Part::Text),
    ("Tolerations", "tolerations", Part::List(TOLERATION)),
    ("HostAliases", "hostAliases", Part::List(&[("IP", "ip", Part::Text), ("Hostnames", "hostnames", Part::Plain)])),
    ("PriorityClassName", "priorityClassName", Part::Text),
    ("Priority", "priority", Part::Plain),
    ("PreemptionPolicy", "preemptionPolicy", Part::Plain),
    (
        "DNSConfig",
        "dnsConfig",
        Part::Pointer(&[
            ("Nameservers", "nameservers", Part::Plain),
            ("Searches", "searches", Part::Plain),
            ("Options", "options", Part::List(&[("Name", "name", Part::Text), ("Value", "value", Part::Plain)])),
        ]),
    ),
    ("ReadinessGates", "readinessGates", Part::List(&[("ConditionType", "conditionType", Part::Text)])),
    ("RuntimeClassName", "runtimeClassName", Part::Plain),
    ("Overhead", "overhead", Part::Plain),
    ("EnableServiceLinks", "enableServiceLinks", Part::Plain),
    (
        "TopologySpreadConstraints",
        "topologySpreadConstraints",
        Part::List(&[
            ("MaxSkew", "maxSkew", Part::Int),
            ("TopologyKey", "topologyKey", Part::Text),
            ("WhenUnsatisfiable", "whenUnsatisfiable", Part::Text),
            ("LabelSelector", "labelSelector", Part::Meta("LabelSelector")),
            ("MinDomains", "minDomains", Part::Plain),
            ("NodeAffinityPolicy", "nodeAffinityPolicy", Part::Plain),
            ("NodeTaintsPolicy", "nodeTaintsPolicy", Part::Plain),
            ("MatchLabelKeys", "matchLabelKeys", Part::Plain),
        ]),
    ),
    ("OS", "os", Part::Pointer(NAMED)),
    ("SchedulingGates", "schedulingGates", Part::List(NAMED)),
    ("ResourceClaims", "resourceClaims", Part::List(RESOURCE_CLAIM)),
    ("Resources", "resources", Part::Pointer(RESOURCES)),
    ("HostnameOverride", "hostnameOverride", Part::Plain),
    ("SchedulingGroup", "schedulingGroup", Part::Pointer(&[("PodGroupName", "podGroupName", Part::Plain)])),
];
