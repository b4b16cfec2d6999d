//! What types and fields are for, in words: the k8s-openapi crate knows them, and nothing else of it is used here.

use k8s_openapi::schemars::JsonSchema;
use k8s_openapi::schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value};

use k8s_openapi::api::{
    admissionregistration::v1 as admissionregistration, apps::v1 as apps, authentication::v1 as authentication,
    authorization::v1 as authorization, autoscaling::v1 as autoscaling_v1, autoscaling::v2 as autoscaling_v2,
    batch::v1 as batch, certificates::v1 as certificates, coordination::v1 as coordination, core::v1 as core,
    discovery::v1 as discovery, events::v1 as events, flowcontrol::v1 as flowcontrol, networking::v1 as networking,
    node::v1 as node, policy::v1 as policy, rbac::v1 as rbac, resource::v1 as resource, scheduling::v1 as scheduling,
    storage::v1 as storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use k8s_openapi::apimachinery::pkg::{apis::meta::v1 as meta, runtime, version};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration;

/// A few megabytes: to be dropped after use.
pub struct Descriptions {
    definitions: Map<String, Value>,
}

/// Every type that a document may name and all that they refer to.
macro_rules! describe {
    ($generator:ident: $($module:ident { $($kind:ident)* })*) => {
        $($(add::<$module::$kind>(&mut $generator);)*)*
    };
}

impl Descriptions {
    pub fn load() -> Descriptions {
        let mut generator = SchemaSettings::openapi3().into_generator();
        describe! { generator:
            admissionregistration {
                MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration
                ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration
            }
            apiextensions { CustomResourceDefinition }
            apiregistration { APIService }
            apps { ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet }
            authentication { SelfSubjectReview TokenRequest TokenReview }
            authorization {
                LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview
            }
            autoscaling_v1 { HorizontalPodAutoscaler Scale }
            autoscaling_v2 { HorizontalPodAutoscaler }
            batch { CronJob Job }
            certificates { CertificateSigningRequest }
            coordination { Lease }
            core {
                Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume
                PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount
            }
            discovery { EndpointSlice }
            events { Event }
            flowcontrol { FlowSchema PriorityLevelConfiguration }
            meta { APIGroup APIGroupList APIResourceList APIVersions DeleteOptions ListMeta Patch Status }
            networking { IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR }
            node { RuntimeClass }
            policy { Eviction PodDisruptionBudget }
            rbac { ClusterRole ClusterRoleBinding Role RoleBinding }
            resource { DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice }
            runtime { RawExtension }
            scheduling { PriorityClass }
            storage {
                CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment VolumeAttributesClass
            }
            version { Info }
        }
        Descriptions { definitions: generator.take_definitions(false) }
    }

    pub fn of_type(&self, name: &str) -> Option<&str> {
        self.definitions.get(name)?.get("description")?.as_str()
    }

    pub fn of_field(&self, name: &str, field: &str) -> Option<&str> {
        self.schema(name)?.get("properties")?.get(field)?.get("description")?.as_str()
    }

    /// The crate's own schema of a type.
    pub fn schema(&self, name: &str) -> Option<&Value> {
        self.definitions.get(name)
    }
}

fn add<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}
