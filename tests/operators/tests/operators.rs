//! Operators written with kube-rs against three replicas: typed objects, patches, caches that follow a watch, a
//! controller, and leases that only one of two holds.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "../../common/mod.rs"]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use common::Cluster;
use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v1::ScaleSpec;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{Event as FinalizerEvent, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher::{self, watcher};
use kube::runtime::{WatchStreamExt, reflector};
use kube::{Api, Client, Discovery, Error, Resource, ResourceExt};
use serde_json::json;

const SPACE: &str = "operators";
const SOON: Duration = Duration::from_secs(30);

async fn client(cluster: &Cluster) -> Client {
    let kubeconfig = Kubeconfig::read_from(&cluster.kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

fn object<K: serde::de::DeserializeOwned>(value: serde_json::Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn config_map(name: &str) -> ConfigMap {
    object(json!({"metadata": {"name": name, "labels": {"made": "here"}}, "data": {"a": "b"}}))
}

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> u16 {
    match result {
        Err(Error::Api(status)) => status.code,
        other => panic!("{other:?} should have been refused"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_work() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cluster = Cluster::start(3, &[]);
    let client = client(&cluster).await;
    let spaces: Api<Namespace> = Api::all(client.clone());
    spaces.create(&PostParams::default(), &object(json!({"metadata": {"name": SPACE}}))).await.unwrap();
    typed(client.clone()).await;
    discovered(client.clone()).await;
    tokio::time::timeout(SOON, watched(client.clone())).await.unwrap();
    tokio::time::timeout(SOON, cached(client.clone())).await.unwrap();
    tokio::time::timeout(SOON, controlled(client.clone())).await.unwrap();
    leased(client).await;
}

async fn typed(client: Client) {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), SPACE);
    let wanted: Deployment = object(json!({
        "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "registry.example/c:1"}]},
            },
        },
    }));
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    deployments.create(&dry, &wanted).await.unwrap();
    assert!(deployments.get_opt("web").await.unwrap().is_none());
    let made = deployments.create(&PostParams::default(), &wanted).await.unwrap();
    assert_eq!(made.spec.as_ref().unwrap().replicas, Some(1));
    assert_eq!(code(deployments.create(&PostParams::default(), &wanted).await), 409);

    let image = |object: &Deployment| {
        object.spec.as_ref().unwrap().template.spec.as_ref().unwrap().containers[0].image.clone().unwrap()
    };
    let containers =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "registry.example/c:2"}]}}}});
    let patched = deployments.patch("web", &PatchParams::default(), &Patch::Strategic(containers)).await.unwrap();
    assert_eq!(image(&patched), "registry.example/c:2");
    let labels = json!({"metadata": {"labels": {"x": "y"}}});
    let patched = deployments.patch_metadata("web", &PatchParams::default(), &Patch::Merge(labels)).await.unwrap();
    assert_eq!(patched.labels()["x"], "y");
    let apply = |image: &str| {
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}},
        })
    };
    let image_3 = Patch::Apply(apply("registry.example/c:3"));
    assert_eq!(code(deployments.patch("web", &PatchParams::apply("one"), &image_3).await), 409);
    let applied = deployments.patch("web", &PatchParams::apply("one").force(), &image_3).await.unwrap();
    assert_eq!(image(&applied), "registry.example/c:3");
    assert_eq!(code(deployments.replace("web", &PostParams::default(), &made).await), 409);

    let scale = deployments.get_scale("web").await.unwrap();
    assert_eq!(scale.spec, Some(ScaleSpec { replicas: Some(1) }));
    let status = Patch::Merge(json!({"status": {"observedGeneration": 3, "replicas": 1}}));
    let patched = deployments.patch_status("web", &PatchParams::default(), &status).await.unwrap();
    assert_eq!(patched.status.unwrap().replicas, Some(1));

    let maps: Api<ConfigMap> = Api::namespaced(client, SPACE);
    for index in 0..10 {
        maps.create(&PostParams::default(), &config_map(&format!("c{index}"))).await.unwrap();
    }
    let mut names = BTreeSet::new();
    let mut page = ListParams::default().labels("made=here").limit(3);
    loop {
        let list = maps.list(&page).await.unwrap();
        names.extend(list.iter().map(|map| map.name_any()));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page.continue_token = Some(token),
            None => break,
        }
    }
    assert_eq!(names.len(), 10);
    assert_eq!(maps.list_metadata(&ListParams::default().fields("metadata.name=c1")).await.unwrap().items.len(), 1);
    maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("made=here")).await.unwrap();
    assert!(maps.list(&ListParams::default()).await.unwrap().items.is_empty());
}

async fn discovered(client: Client) {
    let discovery = Discovery::new(client).run_aggregated().await.unwrap();
    let apps = discovery.get("apps").unwrap();
    let (resource, capabilities) = apps.recommended_kind("Deployment").unwrap();
    assert_eq!((&*resource.plural, capabilities.supports_operation("patch")), ("deployments", true));
    assert!(capabilities.subresources.iter().any(|(part, _)| part.plural == "scale"));
}

/// A plain watch, from a list on.
async fn watched(client: Client) {
    let maps: Api<ConfigMap> = Api::namespaced(client, SPACE);
    let start = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let mut events = maps.watch(&WatchParams::default().labels("made=here"), &start).await.unwrap().boxed();
    maps.create(&PostParams::default(), &config_map("seen")).await.unwrap();
    maps.delete("seen", &DeleteParams::default()).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        match events.try_next().await.unwrap().unwrap() {
            WatchEvent::Added(map) => seen.push(("added", map.name_any())),
            WatchEvent::Deleted(map) => seen.push(("deleted", map.name_any())),
            WatchEvent::Bookmark(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, [("added", "seen".to_owned()), ("deleted", "seen".to_owned())]);
}

/// Caches that are filled by a list and by a stream of initial events hold the same, and follow.
async fn cached(client: Client) {
    let maps: Api<ConfigMap> = Api::namespaced(client, SPACE);
    for index in 0..5 {
        maps.create(&PostParams::default(), &config_map(&format!("cached-{index}"))).await.unwrap();
    }
    for config in [watcher::Config::default().page_size(2), watcher::Config::default().streaming_lists()] {
        let (store, writer) = reflector::store::<ConfigMap>();
        let follow = reflector(writer, watcher(maps.clone(), config)).applied_objects().for_each(async |event| {
            event.unwrap();
        });
        let follow = tokio::spawn(follow);
        store.wait_until_ready().await.unwrap();
        assert_eq!(store.state().len(), 5);
        maps.create(&PostParams::default(), &config_map("cached-later")).await.unwrap();
        while store.state().len() < 6 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        maps.delete("cached-later", &DeleteParams::default()).await.unwrap();
        while store.state().len() > 5 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        follow.abort();
    }
}

/// A controller that keeps a secret for each config map with a finalizer, and takes it away with it.
async fn controlled(client: Client) {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SPACE);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SPACE);
    let selected = watcher::Config::default().labels("controlled=yes");
    let reconcile = async |map: Arc<ConfigMap>, client: Arc<Client>| {
        let maps: Api<ConfigMap> = Api::namespaced((*client).clone(), SPACE);
        let secrets: Api<Secret> = Api::namespaced((*client).clone(), SPACE);
        finalizer(&maps, "example.com/secret", map, async |event| match event {
            FinalizerEvent::Apply(map) => {
                let secret = Secret {
                    metadata: ObjectMeta {
                        name: map.meta().name.clone(),
                        owner_references: Some(vec![map.controller_owner_ref(&()).unwrap()]),
                        ..ObjectMeta::default()
                    },
                    string_data: map.data.clone(),
                    ..Secret::default()
                };
                let parameters = PatchParams::apply("controller").force();
                secrets.patch(&map.name_any(), &parameters, &Patch::Apply(secret)).await?;
                Ok(Action::await_change())
            }
            FinalizerEvent::Cleanup(map) => {
                secrets.delete(&map.name_any(), &DeleteParams::default()).await?;
                Ok::<_, Error>(Action::await_change())
            }
        })
        .await
    };
    let controller = Controller::new(maps.clone(), selected.clone())
        .owns(secrets.clone(), watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(100)), Arc::new(client))
        .for_each(async |_| ());
    let controller = tokio::spawn(controller);

    let mut map = config_map("controlled");
    map.metadata.labels = Some(BTreeMap::from([("controlled".to_owned(), "yes".to_owned())]));
    maps.create(&PostParams::default(), &map).await.unwrap();
    let kept = |value: &'static [u8]| {
        move |secret: Option<&Secret>| {
            secret.and_then(|secret| secret.data.as_ref()).is_some_and(|data| data["a"].0 == value)
        }
    };
    await_condition(secrets.clone(), "controlled", kept(b"b")).await.unwrap();
    let change = Patch::Merge(json!({"data": {"a": "c"}}));
    maps.patch("controlled", &PatchParams::default(), &change).await.unwrap();
    await_condition(secrets.clone(), "controlled", kept(b"c")).await.unwrap();
    // What is taken away comes back.
    let uid = secrets.get("controlled").await.unwrap().uid().unwrap();
    secrets.delete("controlled", &DeleteParams::default()).await.unwrap();
    await_condition(secrets.clone(), "controlled", conditions::is_deleted(&uid)).await.unwrap();
    await_condition(secrets.clone(), "controlled", kept(b"c")).await.unwrap();
    maps.delete("controlled", &DeleteParams::default()).await.unwrap();
    while maps.get_opt("controlled").await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(secrets.get_opt("controlled").await.unwrap().is_none());
    controller.abort();
}

/// Of all that take a lease at once, one gets it.
async fn leased(client: Client) {
    let leases: Api<Lease> = Api::namespaced(client, SPACE);
    let lease = |holder: &str| object(json!({"metadata": {"name": "leader"}, "spec": {"holderIdentity": holder}}));
    leases.create(&PostParams::default(), &lease("nobody")).await.unwrap();
    for round in 0..10 {
        let current = leases.get("leader").await.unwrap();
        let takers: Vec<String> = (0..8).map(|taker| format!("{round}-{taker}")).collect();
        let taken = takers.iter().map(|taker| {
            let mut mine: Lease = lease(taker);
            mine.metadata.resource_version = current.resource_version();
            let leases = leases.clone();
            async move { leases.replace("leader", &PostParams::default(), &mine).await }
        });
        let (won, lost): (Vec<_>, Vec<_>) =
            futures_util::future::join_all(taken).await.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, takers.len() - 1));
        assert!(lost.into_iter().all(|result| code(result) == 409));
        let holder = leases.get("leader").await.unwrap().spec.unwrap().holder_identity;
        assert_eq!(holder, won.into_iter().next().unwrap().unwrap().spec.unwrap().holder_identity);
    }
}
