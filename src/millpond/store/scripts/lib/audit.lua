-- audit: who changed what, when and why. One shape for what an org's changes are and for those of no org.

local AUDIT_MOST = 10000

-- A row of changes, [[what, id, field, old, new], ...], in the audit of the org ('': of what belongs to no org).
-- The version that they make.
local function audit(org, by, why, changes)
  local record, stream = M, P .. 'audit'
  if org ~= '' then record, stream = P .. 'o:' .. org, P .. 'o:' .. org .. ':audit' end
  local version = redis.call('HINCRBY', record, 'version', 1)
  local row = {'at', now, 'by', by, 'version', version, 'changes', cjson.encode(changes)}
  if why ~= '' then row[9], row[10] = 'why', why end
  redis.call('XADD', stream, 'MAXLEN', '~', AUDIT_MOST, '*', unpack(row))
  return version
end
