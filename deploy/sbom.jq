# CycloneDX 1.6 from `cargo metadata`: the crates that the binary is linked from, with their
# licences and who depends on whom. Crates that only the compiler, build scripts or tests use are left out.
. as $meta
| ($meta.packages | map({ key: .id, value: . }) | from_entries) as $packages
| ($meta.packages | map({ key: .id, value: all(.targets[]; .kind != ["proc-macro"]) }) | from_entries) as $linked
| ($meta.resolve.nodes
   | map({ key: .id, value: [.deps[] | select(any(.dep_kinds[]; .kind == null)) | .pkg | select($linked[.])] })
   | from_entries) as $needs
| def ref($id): $packages[$id] | "pkg:cargo/\(.name)@\(.version)";
  # Everything reachable from the root, breadth first.
  def reachable:
    { seen: {}, next: [$meta.resolve.root] }
    | until(.next | length == 0;
        .seen as $seen
        | ([.next[] | { key: ., value: true }] | from_entries) as $new
        | { seen: ($seen + $new), next: [.next[] | $needs[.][] | select($seen[.] or $new[.] | not)] | unique })
    | .seen | keys;
  $packages[$meta.resolve.root] as $root
| reachable as $all
| {
    bomFormat: "CycloneDX",
    specVersion: "1.6",
    version: 1,
    metadata: {
      timestamp: $at,
      tools: { components: [{ type: "application", name: "deploy/sbom.jq", version: $root.version }] },
      component: {
        type: "application",
        "bom-ref": ref($meta.resolve.root),
        name: $root.name,
        version: $root.version,
        purl: ref($meta.resolve.root),
        hashes: [{ alg: "SHA-256", content: $sha256 }],
        licenses: [{ expression: $root.license }]
      }
    },
    components: [
      $all[] | select(. != $meta.resolve.root) as $id | $packages[$id]
      | {
          type: "library",
          "bom-ref": ref($id),
          name: .name,
          version: .version,
          purl: ref($id)
        }
        # Some crates still write the old "MIT/Apache-2.0", which is no SPDX expression.
        + if .license then { licenses: [{ expression: (.license | gsub("/"; " OR ")) }] } else {} end
        + if .repository then { externalReferences: [{ type: "vcs", url: .repository }] } else {} end
    ],
    dependencies: [$all[] as $id | { ref: ref($id), dependsOn: ([$needs[$id][] | ref(.)] | unique) }]
  }
