#!lua flags=allow-oom
-- explain: what a lane's jobs wait for, and who is before whom
--
-- uses base turn flow window
-- ARGV  4 lane   or ''
--       5 flow   in its place, or ''
--       6 job    in its place, or ''
--
-- Replies  {'explained', JSON}   {org, lane, lines: the flows that take turns, at most 200, flow, job};
--                                job.before: entries of its line before it, -1 if there are many
--          {'unknown', what}     lane, flow or job

local LINES_MOST, SEARCHED_MOST = 200, 100000

local lane, flow, job = arg[1], arg[2], arg[3]

local function fields(key)
  local t, flat = {}, redis.call('HGETALL', key)
  for i = 1, #flat, 2 do t[flat[i]] = flat[i + 1] end
  return t
end

local told = {}
if job ~= '' then
  told.job = fields(P .. 'j:' .. job)
  flow = told.job.flow
  if not flow then return reply('unknown', 'job') end
end
if flow ~= '' then
  told.flow = fields(P .. 'f:' .. flow)
  lane = told.flow.lane
  if not lane then return reply('unknown', 'flow') end
  told.flow.common = nil
  told.flow.id = flow
end
local l = P .. 'l:' .. lane
told.lane = fields(l)
if not told.lane.org then return reply('unknown', 'lane') end
local org = told.lane.org
told.org = fields(P .. 'o:' .. org)
told.org.id = org
told.lane.id = lane
told.lane.flight = redis.call('ZCARD', l .. ':flight')

local limits, known, windows = limits_of(lane), known_of(lane), {}
for i, limit in ipairs(limits) do
  local used, frees = taken(lane, limit, known)
  windows[i] = {used = used, frees_at = frees(math.max(1, used - limit[1] + 1))}
end
told.lane.share = share_of(lane, (shortest_of(limits)))
told.slots = tonumber(redis.call('HGET', M, 'free:' .. told.lane.pool)) or 0
told.ready = redis.call('LLEN', P .. 'ready:' .. told.lane.pool)

local lines = {}
for _, class in ipairs(redis.call('ZRANGE', classes_level(lane), 0, -1)) do
  for _, user in ipairs(redis.call('ZRANGE', users_level(lane, class), 0, LINES_MOST - 1)) do
    for _, one in ipairs(redis.call('ZRANGE', flows_level(lane, class, user), 0, LINES_MOST - 1)) do
      local weight, pack = unpack(redis.call('HMGET', P .. 'f:' .. one, 'weight', 'pack'))
      local queued = redis.call('LLEN', P .. 'f:' .. one .. ':q')
      if queued > 0 and #lines < LINES_MOST then
        lines[#lines + 1] = {class = class, user = user, flow = one, queued = queued, weight = tonumber(weight),
          pack = tonumber(pack), user_weight = tonumber(redis.call('HGET', P .. 'o:' .. org .. ':weights', user)) or 1}
      end
    end
  end
end

if told.flow then
  local f = P .. 'f:' .. flow
  told.flow.queued = redis.call('LLEN', f .. ':q')
  told.flow.parked = redis.call('ZCARD', f .. ':parked')
  told.flow.parked_least = redis.call('ZRANGE', f .. ':parked', 0, 0, 'WITHSCORES')[2]
  told.flow.later = redis.call('ZCARD', f .. ':later')
  told.flow.later_at = redis.call('ZRANGE', f .. ':later', 0, 0, 'WITHSCORES')[2]
end
if told.job then
  told.job.id = job
  told.job.later_at = redis.call('ZSCORE', P .. 'f:' .. flow .. ':later', job) or nil
  told.job.parked = redis.call('ZSCORE', P .. 'f:' .. flow .. ':parked', job) or nil
  if told.job.state == 'queued' and not told.job.later_at and not told.job.parked then
    told.job.before = redis.call('LPOS', P .. 'f:' .. flow .. ':q', told.job.entry, 'MAXLEN', SEARCHED_MOST) or -1
  end
end
local text = cjson.encode(told)
local rest_of = '"lines":' .. (#lines > 0 and cjson.encode(lines) or '[]') .. ',"windows":' .. (#windows > 0 and cjson.encode(windows) or '[]')
return reply('explained', '{' .. rest_of .. ',' .. string.sub(text, 2))
