-- terms: what an org's lane was set to, kept beside the org, so that a lane that is lost can be opened again.

local BY_HAND = 'paused: '   -- begins the reason of a pause that a run does not end
local TERMS = {'pool', 'counted', 'credit', 'paced', 'caps'}

local function keep_terms(lane, org)
  local l, terms = P .. 'l:' .. lane, {limits = limits_of(lane)}
  for i, value in ipairs(redis.call('HMGET', l, unpack(TERMS))) do terms[TERMS[i]] = value or nil end
  local paused = redis.call('HGET', l, 'paused')
  if paused and string.find(paused, BY_HAND, 1, true) == 1 then terms.paused = paused end
  redis.call('HSET', P .. 'o:' .. org .. ':terms', lane, cjson.encode(terms))
end

-- A lane's record begins, with nothing known.
local function begin_lane(lane, org)
  redis.call('HSET', P .. 'l:' .. lane, 'org', org, 'life', life, 'tag', 0, 'complete', now, 'before', 0, 'limits', '[]')
  redis.call('ZADD', P .. 'idle', now, lane)
end

-- A lane was lost: it is as it was set, and what it counted is known by the ledger, or counts as full. False: nobody
-- knows how it was set.
local function open_again(lane, org)
  local kept = redis.call('HGET', P .. 'o:' .. org .. ':terms', lane)
  if not kept then return false end
  local l, terms = P .. 'l:' .. lane, cjson.decode(kept)
  begin_lane(lane, org)
  for _, field in ipairs(TERMS) do
    if terms[field] then redis.call('HSET', l, field, terms[field]) end
  end
  if terms.paused then redis.call('HSET', l, 'paused', terms.paused) end
  change_limits(lane, terms.limits)
  count_again(lane)
  wake(lane)
  return true
end
