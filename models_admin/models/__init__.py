"""The records, one model a file."""

from models_admin.models.api_key import ApiKey
from models_admin.models.audit_entry import AuditEntry
from models_admin.models.audit_head import AuditAnchor, AuditHead
from models_admin.models.idempotency import IdempotentAnswer
from models_admin.models.load_record import LoadRecord
from models_admin.models.memory_pool import MemoryPool
from models_admin.models.model_definition import ModelDefinition
from models_admin.models.model_instance import ModelInstance
from models_admin.models.model_use import ModelUse
from models_admin.models.runtime import Runtime
from models_admin.models.step_record import StepRecord
from models_admin.models.switch_event import SwitchEvent
from models_admin.models.switch_job import SwitchJob
from models_admin.models.switch_policy import SwitchPolicy
from models_admin.models.switch_request import SwitchRequest

__all__ = [
    "ApiKey",
    "AuditAnchor",
    "AuditEntry",
    "AuditHead",
    "IdempotentAnswer",
    "LoadRecord",
    "MemoryPool",
    "ModelDefinition",
    "ModelInstance",
    "ModelUse",
    "Runtime",
    "StepRecord",
    "SwitchEvent",
    "SwitchJob",
    "SwitchPolicy",
    "SwitchRequest",
]
