"""Uses the generated client as somebody would who has read no more than its own names."""

import sys

from mesh_client import AuthenticatedClient
from mesh_client.api.changes import apply
from mesh_client.api.http_route import delete_http_route, read_http_route, write_http_route
from mesh_client.api.mesh_service import delete_mesh_service, read_mesh_service, write_mesh_service
from mesh_client.models import Applied, Apply, HTTPRoute, MeshService, Problem, WriteMeshServiceIfNoneMatch
from mesh_client.models import WriteHttpRouteIfNoneMatch

url, token = sys.argv[1:]
client = AuthenticatedClient(base_url=url, token=token)
PLACE = ("shop", "prices")


def service(owner):
    return MeshService.from_dict(
        {
            "apiVersion": "outrigger.dev/v1alpha1",
            "kind": "MeshService",
            "metadata": {"namespace": "shop", "name": "prices"},
            "spec": {"owner": owner, "ports": [{"port": 80, "protocol": "http"}]},
        }
    )


def route(weights):
    parent = {"group": "", "kind": "Service", "name": "prices"}
    backends = [
        {"group": "outrigger.dev", "kind": "ServiceVersion", "name": f"prices.{version}", "weight": weight}
        for version, weight in weights.items()
    ]
    return HTTPRoute.from_dict(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"namespace": "shop", "name": "prices"},
            "spec": {"parentRefs": [parent], "rules": [{"backendRefs": backends}]},
        }
    )


done = []

made = write_mesh_service.sync_detailed(*PLACE, client=client, body=service("ada"), if_none_match=WriteMeshServiceIfNoneMatch("*"))
assert made.status_code == 201 and made.parsed.spec.owner == "ada", made
made = write_http_route.sync_detailed(
    *PLACE, client=client, body=route({"v1": 90, "v2": 10}), if_none_match=WriteHttpRouteIfNoneMatch("*")
)
assert made.status_code == 201 and isinstance(made.parsed, HTTPRoute), made
done.append("created")

read = read_mesh_service.sync_detailed(*PLACE, client=client)
assert read.parsed.spec.ports[0].port == 80 and read.parsed.spec.ports[0].protocol == "http", read
weights = [backend.weight for backend in read_http_route.sync(*PLACE, client=client).spec.rules[0].backend_refs]
assert weights == [90, 10], weights
done.append("read")

version = read.headers["ETag"]
changed = write_mesh_service.sync_detailed(*PLACE, client=client, body=service("grace"), if_match=version)
assert changed.status_code == 200 and changed.parsed.spec.owner == "grace", changed
assert changed.headers["ETag"] != version
done.append("changed")

late = write_mesh_service.sync_detailed(*PLACE, client=client, body=service("ada"), if_match=version)
assert late.status_code == 412 and isinstance(late.parsed, Problem), late
assert late.parsed.current["spec"]["owner"] == "grace", late.parsed
assert late.headers["ETag"] == changed.headers["ETag"]
wrong = service("ada")
wrong.spec.ports[0].port = 0
wrong = write_mesh_service.sync_detailed(*PLACE, client=client, body=wrong, if_match="*")
assert wrong.status_code == 422 and wrong.parsed.problems[0].pointer == "/spec/ports/0/port", wrong
done.append("refused")

both = apply.sync_detailed(client=client, body=Apply(items=[service("both"), route({"v1": 50, "v2": 50})]))
assert both.status_code == 200 and isinstance(both.parsed, Applied), both
assert [change.action for change in both.parsed.changes] == ["updated", "updated"], both.parsed
done.append("applied")

for module in (delete_http_route, delete_mesh_service):
    gone = module.sync_detailed(*PLACE, client=client, if_match="*")
    assert gone.status_code == 200 and gone.parsed.changes[0].action == "deleted", gone
assert read_mesh_service.sync_detailed(*PLACE, client=client).status_code == 404
done.append("deleted")

print(*done)
