#!lua flags=allow-oom
-- mend: what fell out of its place comes back to it
--
-- Every script leaves a flow where it is found again: its lane has its record, it takes turns while it has anything in
-- line, it is looked at when its later or parked jobs may go. If the data was lost in part, that is not so. A few flows
-- are looked at with each call; in a run without faults nothing is mended, so what is mended is counted (`repairs`).
--
-- uses base turn flow window cap hold limit terms
-- ARGV  4 cursor   where the last look ended, '0': at the beginning
--       5 most     flows, about
--
-- Replies  {'mended', n, cursor}

local SOON_MS = 1000   -- longer than a flow lingers for more of a pack

local n = 0

local function mended() n = n + 1 end

-- A flow with something in line takes turns, its user does, and its class.
local function mend_turns(flow, lane, class, user)
  if redis.call('EXISTS', P .. 'f:' .. flow .. ':q') == 0 then return end
  if (tonumber(redis.call('ZSCORE', P .. 'soon', flow)) or math.huge) <= now + SOON_MS then return end   -- it will
  local sits = sits_out(lane, class, user)
  local there = redis.call('ZSCORE', flows_level(lane, class, user), flow)
    and (sits or redis.call('ZSCORE', users_level(lane, class), user) and redis.call('ZSCORE', classes_level(lane), class))
  if there then return end
  if not sits then step_in(lane, class, user, flow) else join(flows_level(lane, class, user), flow, BEHIND, BEHIND_EACH) end
  redis.call('ZREM', P .. 'due', lane)
  wake(lane)
  mended()
end

-- A lane in which somebody takes turns is looked at: now, at a time, or when a slot or a call of it ends.
local function mend_lane(lane)
  local paused, pool, org = unpack(redis.call('HMGET', P .. 'l:' .. lane, 'paused', 'pool', 'org'))
  if paused or redis.call('HGET', P .. 'o:' .. org, 'status') == 'suspended' then return end
  if redis.call('EXISTS', classes_level(lane)) == 0 or redis.call('EXISTS', P .. 'l:' .. lane .. ':flight') == 1 then return end
  for _, set in ipairs({'turn', 'due', 'full:' .. pool}) do
    if redis.call('ZSCORE', P .. set, lane) then return end
  end
  wake(lane)
  mended()
end

-- Jobs that wait for a time or for quota are looked at.
local function mend_waiting(flow, org)
  local f = P .. 'f:' .. flow
  local later = redis.call('ZRANGE', f .. ':later', 0, 0, 'WITHSCORES')[2]
  if later and not redis.call('ZSCORE', P .. 'soon', flow) then
    look_again(flow, tonumber(later))
    mended()
  end
  if redis.call('EXISTS', f .. ':parked') == 1 and not redis.call('ZSCORE', P .. 'o:' .. org .. ':parked', flow) then
    note_parked(org, flow)
    look_again(flow, now)
    mended()
  end
end

local function mend(flow)
  local org, lane, class, user, paused = unpack(redis.call('HMGET', P .. 'f:' .. flow, 'org', 'lane', 'class', 'user', 'paused'))
  if not lane then return end
  if redis.call('HEXISTS', P .. 'l:' .. lane, 'org') == 0 then
    if not open_again(lane, org) then return end
    mended()
  end
  if paused then return end
  mend_turns(flow, lane, class, user)
  mend_lane(lane)
  mend_waiting(flow, org)
end

local cursor, flows = unpack(redis.call('SSCAN', P .. 'flows', arg[1], 'COUNT', arg[2]))
for _, flow in ipairs(flows) do mend(flow) end
if n > 0 then redis.call('HINCRBY', M, 'repairs', n) end
return reply('mended', n, cursor)
