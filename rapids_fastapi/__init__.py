"""Rapids in FastAPI and Starlette: emit events in endpoints, run routers with the application, replay dead letters."""

from rapids_fastapi.admin.auth import AdminUser as AdminUser
from rapids_fastapi.admin.auth import Permission as Permission
from rapids_fastapi.admin.auth import TokenAuth as TokenAuth
from rapids_fastapi.admin.auth import allow_anyone as allow_anyone
from rapids_fastapi.admin.limits import AdminLimits as AdminLimits
from rapids_fastapi.admin.router import rapids_admin as rapids_admin
from rapids_fastapi.correlation_middleware import CorrelationMiddleware as CorrelationMiddleware
from rapids_fastapi.dependencies import EmitterDep as EmitterDep
from rapids_fastapi.dependencies import OnSuccessEmitterDep as OnSuccessEmitterDep
from rapids_fastapi.dependencies import emit_on_success as emit_on_success
from rapids_fastapi.dependencies import get_emitter as get_emitter
from rapids_fastapi.on_success import OnSuccessEmitter as OnSuccessEmitter
from rapids_fastapi.plugin import Rapids as Rapids
from rapids_fastapi.typed_emits import Emits as Emits
from rapids_fastapi.typed_emits import EmitsOnSuccess as EmitsOnSuccess
from rapids_fastapi.typed_emits import describe_emits as describe_emits
from rapids_fastapi.typed_emits import emitting_endpoints as emitting_endpoints
