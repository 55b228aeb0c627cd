-- Health of a ModelDeployment for Argo CD. `obj` is the live object; the table that is returned is its health.
local function condition(status, kind)
  for _, item in ipairs(status.conditions or {}) do
    if item.type == kind then
      return item
    end
  end
  return { status = "", message = "" }
end

local status = obj.status or {}
if status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "waiting for the operator to look at the latest change" }
end
if obj.spec.suspend then
  return { status = "Suspended", message = status.message or "spec.suspend is true" }
end

local stalled = condition(status, "Stalled")
if stalled.status == "True" then
  return { status = "Degraded", message = stalled.message }
end
local reconciling = condition(status, "Reconciling")
if reconciling.status == "True" then
  return { status = "Progressing", message = reconciling.message }
end
local ready = condition(status, "Ready")
if ready.status == "True" then
  return { status = "Healthy", message = ready.message }
end
return { status = "Progressing", message = ready.message }
