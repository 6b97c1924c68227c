#!lua flags=allow-oom
-- look: how things stand for a flow
--
-- uses base turn window cap view
-- ARGV  4 flow
--
-- Replies  {'seen', JSON}   {org, flow, lane}: their fields; windows: each limit's used and when it has
--                     room; caps: the same of each cap of the flow's user
--          {'unknown'}

local flow = flow_view(arg[1])
if not flow.lane then return reply('unknown') end
local lane, windows = lane_view(flow.lane)
if not lane then return reply('unknown') end
return reply('seen', written({org = fields(P .. 'o:' .. flow.org), flow = flow, lane = lane},
  {windows = windows, caps = cap_views(flow.lane, flow.user)}))
