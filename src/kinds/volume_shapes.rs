//! The Go structs of volumes and claims, for messages.

use super::go_shape::{Part, Row, Shape};

const SECRET_REF: Shape = &[("Name", "name", Part::Text), ("Namespace", "namespace", Part::Text)];
const OBJECT_REF: Shape = &[
    ("Kind", "kind", Part::Text),
    ("Namespace", "namespace", Part::Text),
    ("Name", "name", Part::Text),
    ("UID", "uid", Part::Text),
    ("APIVersion", "apiVersion", Part::Text),
    ("ResourceVersion", "resourceVersion", Part::Text),
    ("FieldPath", "fieldPath", Part::Text),
];
const REQUIREMENT: Shape =
    &[("Key", "key", Part::Text), ("Operator", "operator", Part::Text), ("Values", "values", Part::Plain)];
pub const NODE_SELECTOR_TERM: Shape = &[
    ("MatchExpressions", "matchExpressions", Part::List(REQUIREMENT)),
    ("MatchFields", "matchFields", Part::List(REQUIREMENT)),
];
pub const NODE_SELECTOR: Shape = &[("NodeSelectorTerms", "nodeSelectorTerms", Part::List(NODE_SELECTOR_TERM))];
pub const NODE_AFFINITY: Shape = &[("Required", "required", Part::Pointer(NODE_SELECTOR))];
const CSI_SOURCE: Shape = &[
    ("Driver", "driver", Part::Text),
    ("VolumeHandle", "volumeHandle", Part::Text),
    ("ReadOnly", "readOnly", Part::Bool),
    ("FSType", "fsType", Part::Text),
    ("VolumeAttributes", "volumeAttributes", Part::Plain),
    ("ControllerPublishSecretRef", "controllerPublishSecretRef", Part::Pointer(SECRET_REF)),
    ("NodeStageSecretRef", "nodeStageSecretRef", Part::Pointer(SECRET_REF)),
    ("NodePublishSecretRef", "nodePublishSecretRef", Part::Pointer(SECRET_REF)),
    ("ControllerExpandSecretRef", "controllerExpandSecretRef", Part::Pointer(SECRET_REF)),
    ("NodeExpandSecretRef", "nodeExpandSecretRef", Part::Pointer(SECRET_REF)),
];

/// `PersistentVolumeClaimSpec` as messages show it.
pub const CLAIM_SPEC: Shape = &[
    ("AccessModes", "accessModes", Part::Plain),
    ("Selector", "selector", Part::Plain),
    (
        "Resources",
        "resources",
        Part::Struct(&[("Limits", "limits", Part::Plain), ("Requests", "requests", Part::Plain)]),
    ),
    ("VolumeName", "volumeName", Part::Text),
    ("StorageClassName", "storageClassName", Part::Plain),
    ("VolumeMode", "volumeMode", Part::Plain),
    (
        "DataSource",
        "dataSource",
        Part::Pointer(&[
            ("APIGroup", "apiGroup", Part::Plain),
            ("Kind", "kind", Part::Text),
            ("Name", "name", Part::Text),
        ]),
    ),
    (
        "DataSourceRef",
        "dataSourceRef",
        Part::Pointer(&[
            ("APIGroup", "apiGroup", Part::Plain),
            ("Kind", "kind", Part::Text),
            ("Name", "name", Part::Text),
            ("Namespace", "namespace", Part::Plain),
        ]),
    ),
    ("VolumeAttributesClassName", "volumeAttributesClassName", Part::Plain),
];

// Volume types that a pod and a persistent volume spell alike, some but for what a secret is named by.
pub const GCE_DISK: Shape = &[
    ("PDName", "pdName", Part::Text),
    ("FSType", "fsType", Part::Text),
    ("Partition", "partition", Part::Int),
    ("ReadOnly", "readOnly", Part::Bool),
];
pub const AWS_ELASTIC_BLOCK_STORE: Shape = &[
    ("VolumeID", "volumeID", Part::Text),
    ("FSType", "fsType", Part::Text),
    ("Partition", "partition", Part::Int),
    ("ReadOnly", "readOnly", Part::Bool),
];
pub const NFS: Shape =
    &[("Server", "server", Part::Text), ("Path", "path", Part::Text), ("ReadOnly", "readOnly", Part::Bool)];
pub const FIBRE_CHANNEL: Shape = &[
    ("TargetWWNs", "targetWWNs", Part::Plain),
    ("Lun", "lun", Part::Plain),
    ("FSType", "fsType", Part::Text),
    ("ReadOnly", "readOnly", Part::Bool),
    ("WWIDs", "wwids", Part::Plain),
];
pub const AZURE_DISK: Shape = &[
    ("DiskName", "diskName", Part::Text),
    ("DataDiskURI", "diskURI", Part::Text),
    ("CachingMode", "cachingMode", Part::Plain),
    ("FSType", "fsType", Part::Plain),
    ("ReadOnly", "readOnly", Part::Plain),
    ("Kind", "kind", Part::Plain),
];
pub const HOST_PATH: Shape = &[("Path", "path", Part::Text), ("Type", "type", Part::Plain)];
pub const QUOBYTE: Shape = &[
    ("Registry", "registry", Part::Text),
    ("Volume", "volume", Part::Text),
    ("ReadOnly", "readOnly", Part::Bool),
    ("User", "user", Part::Text),
    ("Group", "group", Part::Text),
    ("Tenant", "tenant", Part::Text),
];
pub const FLOCKER: Shape = &[("DatasetName", "datasetName", Part::Text), ("DatasetUUID", "datasetUUID", Part::Text)];
pub const VSPHERE_VOLUME: Shape = &[
    ("VolumePath", "volumePath", Part::Text),
    ("FSType", "fsType", Part::Text),
    ("StoragePolicyName", "storagePolicyName", Part::Text),
    ("StoragePolicyID", "storagePolicyID", Part::Text),
];
pub const PHOTON_DISK: Shape = &[("PdID", "pdID", Part::Text), ("FSType", "fsType", Part::Text)];
pub const PORTWORX_VOLUME: Shape =
    &[("VolumeID", "volumeID", Part::Text), ("FSType", "fsType", Part::Text), ("ReadOnly", "readOnly", Part::Bool)];

pub const fn rbd(secret: Shape) -> [Row; 8] {
    [
        ("CephMonitors", "monitors", Part::Plain),
        ("RBDImage", "image", Part::Text),
        ("FSType", "fsType", Part::Text),
        ("RBDPool", "pool", Part::Text),
        ("RadosUser", "user", Part::Text),
        ("Keyring", "keyring", Part::Text),
        ("SecretRef", "secretRef", Part::Pointer(secret)),
        ("ReadOnly", "readOnly", Part::Bool),
    ]
}
pub const fn iscsi(secret: Shape) -> [Row; 11] {
    [
        ("TargetPortal", "targetPortal", Part::Text),
        ("IQN", "iqn", Part::Text),
        ("Lun", "lun", Part::Int),
        ("ISCSIInterface", "iscsiInterface", Part::Text),
        ("FSType", "fsType", Part::Text),
        ("ReadOnly", "readOnly", Part::Bool),
        ("Portals", "portals", Part::Plain),
        ("DiscoveryCHAPAuth", "chapAuthDiscovery", Part::Bool),
        ("SessionCHAPAuth", "chapAuthSession", Part::Bool),
        ("SecretRef", "secretRef", Part::Pointer(secret)),
        ("InitiatorName", "initiatorName", Part::Plain),
    ]
}
pub const fn flex_volume(secret: Shape) -> [Row; 5] {
    [
        ("Driver", "driver", Part::Text),
        ("FSType", "fsType", Part::Text),
        ("SecretRef", "secretRef", Part::Pointer(secret)),
        ("ReadOnly", "readOnly", Part::Bool),
        ("Options", "options", Part::Plain),
    ]
}
pub const fn cinder(secret: Shape) -> [Row; 4] {
    [
        ("VolumeID", "volumeID", Part::Text),
        ("FSType", "fsType", Part::Text),
        ("ReadOnly", "readOnly", Part::Bool),
        ("SecretRef", "secretRef", Part::Pointer(secret)),
    ]
}
pub const fn ceph_fs(secret: Shape) -> [Row; 6] {
    [
        ("Monitors", "monitors", Part::Plain),
        ("Path", "path", Part::Text),
        ("User", "user", Part::Text),
        ("SecretFile", "secretFile", Part::Text),
        ("SecretRef", "secretRef", Part::Pointer(secret)),
        ("ReadOnly", "readOnly", Part::Bool),
    ]
}
pub const fn scale_io(secret: Shape) -> [Row; 10] {
    [
        ("Gateway", "gateway", Part::Text),
        ("System", "system", Part::Text),
        ("SecretRef", "secretRef", Part::Pointer(secret)),
        ("SSLEnabled", "sslEnabled", Part::Bool),
        ("ProtectionDomain", "protectionDomain", Part::Text),
        ("StoragePool", "storagePool", Part::Text),
        ("StorageMode", "storageMode", Part::Text),
        ("VolumeName", "volumeName", Part::Text),
        ("FSType", "fsType", Part::Text),
        ("ReadOnly", "readOnly", Part::Bool),
    ]
}
pub const fn storage_os(secret: Shape) -> [Row; 5] {
    [
        ("VolumeName", "volumeName", Part::Text),
        ("VolumeNamespace", "volumeNamespace", Part::Text),
        ("FSType", "fsType", Part::Text),
        ("ReadOnly", "readOnly", Part::Bool),
        ("SecretRef", "secretRef", Part::Pointer(secret)),
    ]
}

/// Where the volume types stand in [`PERSISTENT_VOLUME_SPEC`].
pub const VOLUME_SOURCES: std::ops::Range<usize> = 1..23;

/// `PersistentVolumeSpec` as messages show it.
pub const PERSISTENT_VOLUME_SPEC: Shape = &[
    ("Capacity", "capacity", Part::Plain),
    ("GCEPersistentDisk", "gcePersistentDisk", Part::Pointer(GCE_DISK)),
    ("AWSElasticBlockStore", "awsElasticBlockStore", Part::Pointer(AWS_ELASTIC_BLOCK_STORE)),
    ("HostPath", "hostPath", Part::Pointer(HOST_PATH)),
    (
        "Glusterfs",
        "glusterfs",
        Part::Pointer(&[
            ("EndpointsName", "endpoints", Part::Text),
            ("Path", "path", Part::Text),
            ("ReadOnly", "readOnly", Part::Bool),
            ("EndpointsNamespace", "endpointsNamespace", Part::Plain),
        ]),
    ),
    ("NFS", "nfs", Part::Pointer(NFS)),
    ("RBD", "rbd", Part::Pointer(&rbd(SECRET_REF))),
    ("Quobyte", "quobyte", Part::Pointer(QUOBYTE)),
    ("ISCSI", "iscsi", Part::Pointer(&iscsi(SECRET_REF))),
    ("FlexVolume", "flexVolume", Part::Pointer(&flex_volume(SECRET_REF))),
    ("Cinder", "cinder", Part::Pointer(&cinder(SECRET_REF))),
    ("CephFS", "cephfs", Part::Pointer(&ceph_fs(SECRET_REF))),
    ("FC", "fc", Part::Pointer(FIBRE_CHANNEL)),
    ("Flocker", "flocker", Part::Pointer(FLOCKER)),
    (
        "AzureFile",
        "azureFile",
        Part::Pointer(&[
            ("SecretName", "secretName", Part::Text),
            ("ShareName", "shareName", Part::Text),
            ("ReadOnly", "readOnly", Part::Bool),
            ("SecretNamespace", "secretNamespace", Part::Plain),
        ]),
    ),
    ("VsphereVolume", "vsphereVolume", Part::Pointer(VSPHERE_VOLUME)),
    ("AzureDisk", "azureDisk", Part::Pointer(AZURE_DISK)),
    ("PhotonPersistentDisk", "photonPersistentDisk", Part::Pointer(PHOTON_DISK)),
    ("PortworxVolume", "portworxVolume", Part::Pointer(PORTWORX_VOLUME)),
    ("ScaleIO", "scaleIO", Part::Pointer(&scale_io(SECRET_REF))),
    ("Local", "local", Part::Pointer(&[("Path", "path", Part::Text), ("FSType", "fsType", Part::Plain)])),
    ("StorageOS", "storageos", Part::Pointer(&storage_os(OBJECT_REF))),
    ("CSI", "csi", Part::Pointer(CSI_SOURCE)),
    ("AccessModes", "accessModes", Part::Plain),
    ("ClaimRef", "claimRef", Part::Pointer(OBJECT_REF)),
    ("PersistentVolumeReclaimPolicy", "persistentVolumeReclaimPolicy", Part::Text),
    ("StorageClassName", "storageClassName", Part::Text),
    ("MountOptions", "mountOptions", Part::Plain),
    ("VolumeMode", "volumeMode", Part::Plain),
    ("NodeAffinity", "nodeAffinity", Part::Pointer(NODE_AFFINITY)),
    ("VolumeAttributesClassName", "volumeAttributesClassName", Part::Plain),
];
